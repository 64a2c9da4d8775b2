"""Whether decoding an H.264 stream can start at a packet. Containers also mark packets as key frames from which the picture
only recovers over the next frames ("intra refresh"); a decoder shows those half-recovered.

Source: ITU-T H.264 (ISO/IEC 14496-10).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

SEI, IDR, RECOVERY_POINT = 6, 5, 6
"""H.264: `nal_unit_type` of messages and of a picture at which everything starts afresh; `payloadType` of a message."""


def nal_length_size(extradata: bytes | None) -> int:
    """Bytes of a NAL unit's length field (ISO/IEC 14496-15, `avcC`); 0 for start codes (H.264, Annex B)."""
    return (extradata[4] & 3) + 1 if extradata and len(extradata) > 4 and extradata[0] == 1 else 0


def starts_afresh(packet: bytes, length_size: int) -> bool:
    """Whether an H.264 key packet is whole by itself: an IDR picture, or one from which recovery takes 0 frames."""
    for unit in _nal_units(packet, length_size):
        kind = unit[0] & 31  # `nal_unit_type`, H.264, table 7-1
        if kind == IDR or (kind == SEI and _recovers_at_once(unit[1:].replace(b"\0\0\3", b"\0\0"))):
            return True
    return False


def _nal_units(packet: bytes, length_size: int) -> Iterator[bytes]:
    if not length_size:
        yield from (unit for unit in packet.split(b"\0\0\1")[1:] if unit)
        return
    at = 0
    while at + length_size < len(packet):
        start = at + length_size
        at = start + int.from_bytes(packet[at:start], "big")
        if at > start:
            yield packet[start:at]


def _recovers_at_once(messages: bytes) -> bool:
    """Whether a recovery point message says `recovery_frame_cnt` 0, its first bit 1 (H.264, 7.3.2.3 and D.1.8)."""
    reader = iter(messages)
    kind = size = 0
    for byte in reader:  # each message: type, then size, each the sum of bytes up to one below 255, then the payload
        kind += byte
        if byte == 255:
            continue
        for more in reader:
            size += more
            if more < 255:
                break
        payload = bytes(islice(reader, size))
        if kind == RECOVERY_POINT and payload:
            return payload[0] >= 128
        kind = size = 0
    return False
