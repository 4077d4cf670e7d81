"use strict";
// Looks at a report from inside, for the browser tests; what is wrong is left in the page, a line for each.
(() => {
  const wrong = [];
  const check = (fine, what) => { if (!fine) wrong.push(what); };
  const all = (selector, root) => [...(root || document).querySelectorAll(selector)];
  const press = (target, key) => {
    target.focus();
    check(document.activeElement === target, `keyboard: ${target.className} cannot be focused`);
    target.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  };

  const charts = () => {
    for (const box of all(".chart")) {
      const name = `chart ${box.dataset.chart}`;
      const canvas = box.querySelector("canvas");
      const size = canvas ? canvas.getBoundingClientRect() : { width: 0, height: 0 };
      check(size.width > 150 && size.height > 100, `${name} has no size`);
      if (!canvas || canvas.width === 0) continue;
      const dots = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
      check(dots.some((value, at) => at % 4 === 3 && value > 0), `${name} is empty`);
      const target = box.querySelector("[tabindex]");
      check(target, `keyboard: ${name} has nothing to focus`);
      if (!target) continue;
      press(target, "ArrowRight");
      check(box.querySelector(".read").textContent.length > 3, `keyboard: ${name} reads nothing`);
      check(target.getAttribute("aria-label"), `${name} has no name`);
      const section = box.closest("section");
      check(section.querySelector("table"), `${name} has no table`);
      check(section.querySelector(".cmd code"), `${name} has no command`);
    }
    for (const strip of all("svg.strip")) {
      const size = strip.getBoundingClientRect();
      check(size.width > 100 && size.height > 8, "a strip has no size");
    }
  };

  const controls = () => {
    for (const control of all("a[href], button, summary, input")) {
      check(control.tabIndex >= 0, `keyboard: ${control.tagName} ${control.textContent} is no stop of the Tab key`);
      check(control.textContent.trim() || control.id, `${control.outerHTML} has no name`);
    }
    for (const region of all(".scroll")) check(region.tabIndex === 0, "keyboard: a table that scrolls is no stop of the Tab key");
    for (const link of all("a[href^='#']")) {
      check(document.getElementById(link.getAttribute("href").slice(1)), `${link.getAttribute("href")} leads nowhere`);
    }
    const ids = all("[id]").map((one) => one.id);
    check(new Set(ids).size === ids.length, "an id is there twice");
    const button = document.querySelector("th button");
    button.click();
    check(button.parentElement.getAttribute("aria-sort") === "ascending", "a table was not sorted");
  };

  // WCAG 2.1: relative luminance and contrast ratio.
  const luminance = (hex) => {
    const linear = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16) / 255).map((part) => part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const contrast = () => {
    const text = ["--ink", "--soft", "--link", "--good", "--bad"], series = ["--s0", "--s1", "--s2", "--s3", "--s4", "--s5", "--s6", "--s7"];
    const button = document.getElementById("theme");
    const papers = new Set();
    for (let theme = 0; theme < 3; theme++) {
      const style = getComputedStyle(document.documentElement);
      const colour = (name) => style.getPropertyValue(name).trim();
      papers.add(colour("--paper"));
      for (const back of ["--paper", "--panel", "--stripe"]) {
        for (const [names, least] of [[text, 4.5], [series, 3]]) {
          for (const name of names) {
            const [low, high] = [luminance(colour(name)), luminance(colour(back))].sort((a, b) => a - b);
            check((high + 0.05) / (low + 0.05) >= least, `contrast: ${name} ${colour(name)} on ${back} ${colour(back)}`);
          }
        }
      }
      button.click();
    }
    check(papers.size === 2, "the button does not change the theme");
  };

  const look = () => {
    charts();
    controls();
    contrast();
    check(document.documentElement.dataset.ready === "yes", "the script did not reach its end");
    check(document.documentElement.scrollWidth <= window.innerWidth, `${document.documentElement.scrollWidth}: wider than the window`);
    check(performance.getEntriesByType("resource").length === 0, "something was loaded");
    const outside = all("[src], link[href], a[href]").filter((one) => /^(https?:)?\/\//.test(one.getAttribute("src") || one.getAttribute("href") || ""));
    check(outside.length === 0, "something refers to the network");
    const said = document.createElement("pre");
    said.id = "probe";
    said.textContent = wrong.join("\n");
    document.body.append(said);
  };
  // Charts in what is folded are drawn when it opens, which is told a task later.
  for (const folded of all("details")) folded.open = true;
  setTimeout(look, 1000);
})();
