import assert from "node:assert/strict";
import { test } from "node:test";
import { World } from "./world.ts";

test("events run by time, and in the order of asking within one moment", () => {
  const world = new World();
  const ran: string[] = [];
  world.at(20, () => ran.push("late"));
  world.at(10, () => {
    ran.push("first");
    world.after(0, () => ran.push("third"));
  });
  world.at(10, () => ran.push("second"));
  world.run(15, () => false);
  assert.deepEqual(ran, ["first", "second", "third"]);
  world.run(100, () => false);
  assert.deepEqual(ran.at(-1), "late");
  assert.equal(world.nowUs, 20);
});
