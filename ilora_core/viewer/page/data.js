"use strict";
// The scene's numbers: unpacking, and the geometry of ilora_core/viewer/geometry.py (OpenCV frame: x right, y down, z forward).

async function unpack(text) {
  const packed = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function readScene() {
  const scene = JSON.parse(document.getElementById("scene").textContent);
  scene.count = scene.width * scene.height;
  for (const name of ["picture", "albedo", "normals"]) {
    if (scene[name]) scene[name] = await unpack(scene[name]);
  }
  if (scene.depth) {
    const bytes = await unpack(scene.depth.data);
    const view = new DataView(bytes.buffer);
    const { low, high } = scene.depth;
    scene.depth.map = Float32Array.from({ length: scene.count }, (_, i) => {
      const q = view.getUint16(2 * i, true);
      return q ? low + ((q - 1) / 65534) * (high - low) : NaN;
    });
  }
  return scene;
}

function focalPx(scene, fovDeg) {
  return Math.max(scene.width, scene.height) / (2 * Math.tan((fovDeg * Math.PI) / 360));
}

// Depth along z; NaN where it is not known. Relative depth: nearest 1, farthest `ratio`.
function depthAlongZ(scene, ratio) {
  const { map, kind, limits: [low, high] } = scene.depth;
  return map.map((d) => {
    if (kind === "metric") return d > 0 ? d : NaN;
    const t = (d - low) / (high - low);
    const z = kind === "affine_depth" ? 1 + (ratio - 1) * t : 1 / (1 / ratio + (1 - 1 / ratio) * t);
    return z > 0.05 && z < ratio / 0.05 ? z : NaN;
  });
}

function unproject(scene, z, fovDeg) {
  const f = focalPx(scene, fovDeg), { width, height } = scene;
  const points = new Float32Array(3 * scene.count);
  for (let v = 0, i = 0; v < height; v++) {
    for (let u = 0; u < width; u++, i++) {
      points[3 * i] = (z[i] * (u + 0.5 - width / 2)) / f;
      points[3 * i + 1] = (z[i] * (v + 0.5 - height / 2)) / f;
      points[3 * i + 2] = z[i];
    }
  }
  return points;
}

function jumps(a, b, most) {
  return Math.abs(a - b) > most * Math.min(a, b);
}

// 1 for pixels to draw: known, and unless `keepEdges`, not at a depth edge.
function kept(scene, z, fovDeg, keepEdges) {
  const most = scene.edge_slope / focalPx(scene, fovDeg), { width, height } = scene;
  const good = Uint8Array.from(z, (value) => (value > 0 ? 1 : 0));
  if (keepEdges) return good;
  for (let v = 0, i = 0; v < height; v++) {
    for (let u = 0; u < width; u++, i++) {
      if (u + 1 < width && jumps(z[i], z[i + 1], most)) good[i] = good[i + 1] = 0;
      if (v + 1 < height && jumps(z[i], z[i + width], most)) good[i] = good[i + width] = 0;
    }
  }
  return good;
}

function normalAt(scene, i) {
  const q = scene.normals, x = q[3 * i] - 128, y = q[3 * i + 1] - 128, z = q[3 * i + 2] - 128;
  if (!q[3 * i]) return null;
  const length = Math.hypot(x, y, z) || 1;
  return [x / length, y / length, z / length];
}

function quantile(values, q) {
  const sorted = Float32Array.from(values).sort();
  return sorted[Math.round(q * (sorted.length - 1))];
}

// 1, 2 or 5 times a power of ten, at most `x`.
function niceLength(x) {
  const power = 10 ** Math.floor(Math.log10(x));
  return [5, 2, 1].map((m) => m * power).find((length) => length <= x * 1.0001) ?? power;
}
