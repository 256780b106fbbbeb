"use strict";
// What the page says beside the scene: the controls' values, axes, scale, agreement and notes.

const RATIOS = [1.05, 50];
const byId = (id) => document.getElementById(id);
const ratioOf = (t) => RATIOS[0] * (RATIOS[1] / RATIOS[0]) ** t;
const sliderOf = (ratio) => Math.log(ratio / RATIOS[0]) / Math.log(RATIOS[1] / RATIOS[0]);

// Controls and overlays say what the settings are.
function showSettings(viewer) {
  const { settings, scene, mode } = viewer;
  for (const name of ["colour", "draw", "material"]) byId(name).value = settings[name];
  for (const name of ["needles", "edges", "follow"]) byId(name).checked = settings[name];
  for (const name of ["fov", "azimuth", "elevation", "ambient"]) byId(name).value = settings[name];
  byId("ratio").value = sliderOf(settings.ratio);
  byId("ratio-value").value = settings.ratio.toFixed(2);
  for (const name of ["fov", "azimuth", "elevation"]) byId(`${name}-value`).value = `${Math.round(settings[name])}°`;
  byId("ambient-value").value = settings.ambient.toFixed(2);
  for (const button of document.querySelectorAll("[data-mode]")) button.setAttribute("aria-pressed", button.dataset.mode === mode);
  byId("cloud-controls").hidden = byId("axes").hidden = mode !== "cloud";
  byId("axes").style.display = mode === "cloud" ? "" : "none";
  byId("relit-controls").hidden = mode !== "relit";
  document.querySelector(".cameras").style.visibility = mode === "cloud" ? "" : "hidden";
  byId("scale").hidden = mode !== "cloud";
  if (mode === "cloud") { showAxes(viewer.camera); showScale(viewer); }
}

const AXES = [["x right", "#e5484d", [1, 0, 0]], ["y down", "#30a46c", [0, 1, 0]], ["z forward", "#3e7bfa", [0, 0, 1]]];

function showAxes(camera) {
  const turn = camera.quaternion.clone().invert();
  const seen = AXES.map(([label, colour, [x, y, z]]) => ({ label, colour, to: new THREE.Vector3(x, -y, -z).applyQuaternion(turn) }));
  seen.sort((a, b) => a.to.z - b.to.z);
  byId("axes").innerHTML = seen.map(({ label, colour, to }) => {
    const [x, y] = [36 * to.x, -36 * to.y];
    const anchor = x < -12 ? "end" : x > 12 ? "start" : "middle";
    const [tx, ty] = [x + (anchor === "middle" ? 0 : Math.sign(x) * 4), y + (y < -12 ? -5 : y > 12 ? 14 : 4)];
    return `<line x1="0" y1="0" x2="${x}" y2="${y}" stroke="${colour}"/><text x="${tx}" y="${ty}" text-anchor="${anchor}">${label}</text>`;
  }).join("");
}

function showScale({ scene, cloud }) {
  const metric = scene.depth.kind === "metric", [near, , far] = cloud.bounds[2];
  const digits = (x) => Number(x.toPrecision(3)).toString();
  const unit = metric ? "m" : "× nearest depth";
  byId("scale").textContent = `grid ${digits(cloud.cell)} ${unit} · depth ${digits(near)} to ${digits(far)}${metric ? " m" : ""}`;
}

function showAgreement(agreement) {
  const badge = byId("badge");
  if (!agreement) return;
  const { mean_cosine: cosine, per_axis: axes, sentence, suspect } = agreement;
  badge.hidden = false;
  badge.className = suspect ? "bad" : cosine === null || cosine < 0.9 ? "fair" : "good";
  badge.textContent = sentence;
  if (cosine === null) return;
  const signed = (value) => (value === null ? "–" : value.toFixed(2).replace("-0.00", "0.00").replace("-", "−"));
  const small = document.createElement("small");
  small.textContent = `mean cosine ${signed(cosine)}; per axis ${Object.entries(axes).map(([axis, v]) => `${axis} ${signed(v)}`).join(", ")}`;
  badge.append(small);
}

function showNotes(scene) {
  const notes = ["Frame: x right, y down, z forward, as in OpenCV. The grey outline is the camera that took the picture."];
  if (scene.depth) {
    notes.push("The field of view of the longer side is an assumption: the slider changes it.");
    if (scene.depth.kind !== "metric") notes.push(
      `This depth is relative (${scene.depth.kind}): its nearest point is called 1, and how far the farthest lies is the slider's.` +
      (scene.depth.fitted ? " It starts where depth agrees best with the normals." : ""));
    notes.push("Points where depth jumps are left out, unless “keep depth edges” is on.");
  }
  if (scene.depth && scene.normals) notes.push(
    "Needles stand on the surface along the given normals. Amber ones lean over 45° from the normal of the depth, red ones point into the surface. The line at the top compares the normals with those of the depth.");
  if (scene.normals) notes.push("Relit: material × (ambient + (1 − ambient) max(0, n·l)). A light from the left brightens what faces left.");
  notes.push("Keys: 1 and 2 change the view; o, c, s, t the camera; n the needles; in the scene, arrows turn it or the light, + and − move.");
  byId("notes").replaceChildren(...notes.map((text) => Object.assign(document.createElement("li"), { textContent: text })));
}
