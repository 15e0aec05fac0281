"use strict";
(() => {
  const table = document.getElementById("table");
  const attempts = [...table.tBodies];
  const find = document.getElementById("find");
  const outcome = document.getElementById("outcome");
  const shown = document.getElementById("shown");
  const numbers = new Set(["id", "took"]);

  const filter = () => {
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const attempt of attempts) {
      const text = attempt.textContent.toLowerCase();
      const wanted = (!outcome.value || attempt.dataset.outcome === outcome.value) && words.every((word) => text.includes(word));
      attempt.hidden = !wanted;
      count += wanted ? 1 : 0;
    }
    shown.textContent = `${count} of ${attempts.length}`;
  };

  const sort = (heading) => {
    const key = heading.dataset.key;
    const down = heading.getAttribute("aria-sort") === "ascending";
    for (const other of heading.parentElement.cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    const compare = numbers.has(key)
      ? (a, b) => Number(a.dataset[key]) - Number(b.dataset[key])
      : (a, b) => (a.dataset[key] < b.dataset[key] ? -1 : a.dataset[key] > b.dataset[key] ? 1 : 0);
    attempts.sort((a, b) => (down ? compare(b, a) : compare(a, b)));
    table.append(...attempts);
  };

  for (const heading of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = heading.textContent;
    button.addEventListener("click", () => sort(heading));
    heading.replaceChildren(button);
  }
  document.getElementById("tools").addEventListener("submit", (event) => event.preventDefault());
  find.addEventListener("input", filter);
  outcome.addEventListener("change", filter);
  document.getElementById("tools").hidden = false;
  filter();
})();
