import assert from "node:assert/strict";
import { test } from "node:test";
import { Prng } from "../src/base/prng.ts";
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

test("near and far, sparse and dense: the order is that of a sorted list, whatever the bucket", () => {
  for (const bucketUs of [1, 32, 1000]) {
    const world = new World(bucketUs);
    const prng = new Prng(bucketUs);
    const ran: number[] = [];
    let asked = 0;
    const ask = (dueUs: number): void => {
      asked++;
      world.at(dueUs, () => {
        assert.equal(world.nowUs, dueUs);
        ran.push(dueUs);
        const reach = [3, 900, 400_000, 40_000_000][prng.below(4)] as number;
        if (asked < 4_000) for (let i = 0; i < 2; i++) ask(dueUs + prng.below(reach));
      });
    };
    for (let i = 0; i < 50; i++) ask(prng.below(1_000_000));
    world.run(Number.POSITIVE_INFINITY, () => false);
    assert.equal(ran.length, asked);
    assert.equal(world.pendingCount, 0);
    assert.deepEqual(ran, ran.toSorted((a, b) => a - b));
  }
});
