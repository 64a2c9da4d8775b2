"""Miniatures of public benchmarks in their official formats, with small videos: `make_<name>(folder) -> folder`."""
