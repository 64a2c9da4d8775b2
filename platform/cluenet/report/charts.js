"use strict";
// Values under the pointer or by arrow keys (left and right along a series, up and down between them); legends switch series.
for (const figure of document.querySelectorAll(".chart")) {
  const svg = figure.querySelector(":scope > svg"), tip = figure.querySelector(".tip");
  const groups = [...svg.querySelectorAll("g.series")];
  const tips = groups.map((group) => JSON.parse(group.dataset.tips));
  const ring = svg.appendChild(document.createElementNS("http://www.w3.org/2000/svg", "circle"));
  ring.setAttribute("class", "ring");
  ring.setAttribute("r", 7);
  let at = [0, -1]; // series, point
  const shown = () => tips.map((_, s) => s).filter((s) => !groups[s].hasAttribute("hidden") && tips[s].length);
  const hide = () => { tip.hidden = true; ring.setAttribute("hidden", ""); };
  const show = (s, i) => {
    at = [s, i];
    const [x, y, words] = tips[s][i], box = svg.viewBox.baseVal, scale = svg.clientWidth / box.width;
    ring.setAttribute("cx", x);
    ring.setAttribute("cy", y);
    ring.removeAttribute("hidden");
    tip.textContent = words;
    tip.hidden = false;
    const half = tip.offsetWidth / 2;
    tip.style.left = Math.min(Math.max(x * scale, half), Math.max(half, figure.clientWidth - half)) + "px";
    tip.style.top = svg.getBoundingClientRect().top - figure.getBoundingClientRect().top + y * scale + "px";
  };
  const nearest = (x, y) => {
    let best = null, least = Infinity;
    for (const s of shown()) tips[s].forEach(([px, py], i) => {
      const far = Math.hypot(px - x, py - y);
      if (far < least) { least = far; best = [s, i]; }
    });
    return best;
  };
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect(), scale = svg.viewBox.baseVal.width / box.width;
    const found = nearest((event.clientX - box.left) * scale, (event.clientY - box.top) * scale);
    if (found) show(...found);
  });
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("blur", hide);
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key], open = shown();
    if (event.key === "Escape") hide();
    if (!step || !open.length) return;
    event.preventDefault();
    const s = open[(Math.max(0, open.indexOf(at[0])) + step[0] + open.length) % open.length];
    show(s, Math.min(Math.max(at[1] + step[1], 0), tips[s].length - 1));
  });
  for (const button of figure.querySelectorAll(".legend button")) button.addEventListener("click", () => {
    const group = groups[Number(button.dataset.series)], hidden = group.toggleAttribute("hidden");
    button.setAttribute("aria-pressed", String(!hidden));
    hide();
  });
  hide();
}
