import assert from "node:assert/strict";
import { test } from "node:test";
import type { Topology } from "../protocol/topology.ts";
import type { Link } from "./link/link.ts";
import { LinkPlaces } from "./link-places.ts";

test("both ends hear where the other stands, and hear it again when a host stands elsewhere", () => {
  const told: (readonly [string, Topology])[] = [];
  const link = (name: string): Link => ({ name, send: (frame: { topology: Topology }) => told.push([name, frame.topology]) }) as unknown as Link;
  const [near, far, silent] = [link("near"), link("far"), link("silent")];
  const placed: (readonly [Link, number])[] = [];
  const places = new LinkPlaces({ zone: "a" }, { links: [near, far, silent], placed: (...where) => placed.push(where) });

  places.opened(near);
  places.heard(near, { zone: "a", rack: "r" });
  places.heard(far, { zone: "b", rack: "r" });
  assert.deepEqual(told.splice(0), [["near", { zone: "a" }]]);
  assert.deepEqual(placed.splice(0), [[near, 2], [far, 3]]);

  places.moved({ zone: "a", rack: "r" });
  assert.deepEqual(told.splice(0).map(([name]) => name), ["near", "far", "silent"]);
  assert.deepEqual(placed.splice(0), [[near, 0], [far, 3]]);

  places.moved({ zone: "a", rack: "r" });
  assert.deepEqual([told, placed], [[], []]);
});
