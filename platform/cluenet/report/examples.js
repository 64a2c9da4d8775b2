// Filters of the example browser, and clues: choosing one lights its frames, boxes, column of the options, and the model's attention.
const filters = document.getElementById("filters");
if (filters) {
  const articles = [...document.querySelectorAll("article.example")];
  const apply = () => {
    const wanted = [...new FormData(filters)].filter(([, value]) => value);
    for (const article of articles) article.hidden = !wanted.every(([name, value]) => article.dataset[name] === value);
    const left = articles.filter((article) => !article.hidden).length;
    document.getElementById("count").textContent = left === articles.length ? `${left} examples` : `${left} of ${articles.length} examples`;
  };
  filters.addEventListener("change", apply);
  filters.addEventListener("submit", (event) => event.preventDefault());
  filters.addEventListener("reset", () => setTimeout(apply));
  apply(); // a browser may keep what was chosen before the page was loaded again
}
for (const article of document.querySelectorAll("article.example")) {
  const clues = [...article.querySelectorAll(".clue")], frames = [...article.querySelectorAll(".frame")];
  const choose = (chosen) => {
    const lit = new Set(chosen && chosen.dataset.frames ? chosen.dataset.frames.split(" ") : []), heat = chosen?.dataset.heat;
    article.classList.toggle("chosen", Boolean(chosen));
    article.classList.toggle("heated", Boolean(heat));
    for (const clue of clues) clue.setAttribute("aria-pressed", String(clue === chosen));
    for (const part of article.querySelectorAll(".box, [data-clue]:is(td, th)"))
      part.classList.toggle("lit", Boolean(chosen) && part.dataset.clue === chosen.dataset.clue);
    frames.forEach((frame, place) => {
      frame.classList.toggle("lit", lit.has(frame.dataset.frame));
      const style = frame.querySelector(".heat").style;
      style.backgroundImage = heat ? `url("${heat}")` : "";
      style.backgroundSize = `${100 * frames.length}% 100%`;
      style.backgroundPosition = `${frames.length > 1 ? (100 * place) / (frames.length - 1) : 0}% 0`;
    });
  };
  for (const clue of clues) clue.addEventListener("click", () => choose(clue.getAttribute("aria-pressed") === "true" ? null : clue));
  for (const link of article.querySelectorAll(".link")) link.addEventListener("click", () => {
    const clue = clues.find((one) => one.dataset.clue === link.dataset.clue);
    choose(clue);
    clue.scrollIntoView({ block: "nearest" });
  });
}
