// What the viewer uses of three.js; esbuild leaves out most of the rest.
export {
  BufferAttribute, BufferGeometry, Color, ColorManagement, ConeGeometry, DataTexture, DoubleSide, GridHelper, Group,
  InstancedMesh, LineBasicMaterial, LineSegments, LinearFilter, LinearSRGBColorSpace, Matrix4, Mesh, MeshBasicMaterial,
  OrthographicCamera, PerspectiveCamera, PlaneGeometry, Points, Quaternion, Scene, ShaderMaterial, Vector3, WebGLRenderer,
} from "three";
export { OrbitControls } from "three/addons/controls/OrbitControls.js";
