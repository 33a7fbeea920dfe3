"use strict";
// What the page holds: columns of clusters at once, blocks of members and pictures when they are needed.

const byId = (id) => document.getElementById(id);

function readBlock(name) {
  const element = byId("data-" + name);
  return element === null ? null : JSON.parse(element.textContent);
}

const facts = readBlock("facts");
const columns = readBlock("clusters");
const clusterCount = columns.size.length;
const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]/g;

function totals(counts) {
  const starts = new Int32Array(counts.length + 1);
  for (let i = 0; i < counts.length; i++) starts[i + 1] = starts[i] + counts[i];
  return starts;
}

const memberStarts = totals(columns.listed);
const sourceStarts = totals(columns.sourceCounts);

const sampled = new Set(facts.sampled);

const pictureOf = new Int32Array(memberStarts[clusterCount]).fill(-1);
facts.pictured.forEach((member, number) => { pictureOf[member] = number; });

const blocks = new Map();

function cached(name) {
  if (!blocks.has(name)) blocks.set(name, readBlock(name));
  return blocks.get(name);
}

function blockOf(cluster) {
  const begins = facts.memberBlocks;
  let low = 0, high = begins.length - 2;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (begins[middle] <= cluster) low = middle; else high = middle - 1;
  }
  return low;
}

// One listed member of a cluster; `index` counts from its oldest.
function memberAt(cluster, index) {
  const number = blockOf(cluster);
  const block = cached("members-" + number);
  const at = memberStarts[cluster] + index;
  const local = at - memberStarts[facts.memberBlocks[number]];
  const id = block.id[local];
  const extension = block.image === undefined || block.image[local] < 0 ? null : facts.extensions[block.image[local]];
  return {
    id,
    cluster,
    index,
    time: block.time[local],
    source: block.source[local] < 0 ? null : facts.sources[block.source[local]],
    track: block.track[local] < 0 ? null : block.tracks[block.track[local]],
    central: block.central[local] / 10000,
    quality: block.quality === undefined || block.quality[local] === null ? null : block.quality[local] / 10000,
    low: block.low !== undefined && block.low[local] === 1,
    picture: pictureOf[at],
    path: extension === null ? null
      : `images/${cluster}/${encodeURIComponent(block.names[local] ?? id)}.${extension}`,
  };
}

function pictureAddress(number) {
  const block = cached("pictures-" + Math.floor(number / facts.pictureBlock));
  return "data:image/jpeg;base64," + block[number % facts.pictureBlock];
}

const number = (value) => value.toLocaleString("en-US");
const plural = (count, one, many) => `${number(count)} ${count === 1 ? one : many}`;
const share = (value) => value === null ? "–" : (value / 10000).toFixed(3);
// Of a sample of its links, a weakest link is a lower bound.
const weakestOf = (cluster) => (sampled.has(cluster) && columns.weakest[cluster] !== null ? "≥ " : "") + share(columns.weakest[cluster]);
const visible = (text) => text.replace(UNSEEN, (found) => "\\u" + found.charCodeAt(0).toString(16).padStart(4, "0"));

function timeText(milliseconds) {
  if (milliseconds === null) return "no time";
  return new Date(facts.baseMs + milliseconds).toISOString().slice(0, 19).replace("T", " ");
}

// A time span as texts between which a line may break.
function spanTexts(first, last) {
  if (first === null) return ["no time"];
  const from = timeText(first), to = timeText(last);
  if (from === to) return [from];
  if (from.slice(0, 10) === to.slice(0, 10)) return [`${from.slice(0, 16)} – ${to.slice(11, 16)}`];
  return [`${from.slice(0, 16)} –`, to.slice(0, 16)];
}

const spanOf = (cluster) => spanTexts(columns.first[cluster], columns.last[cluster])
  .flatMap((text) => [make("span", { class: "nowrap" }, text), " "]);

// Elements are made of text and other elements, never of markup.
function make(tag, properties, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (name === "class") element.className = value;
    else if (name.includes("-") || name === "role") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

const foreign = (text, tag = "bdi") => make(tag, {}, visible(text));
