import assert from "node:assert/strict";
import { test } from "node:test";
import { ExtraStreams, type Place } from "./extra-streams.ts";

/** A read whose rest can be changed, and what it was told. */
function enter(streams: ExtraStreams, origin: string, leftBytes: number): { place: Place; left: number; turns: number } {
  const read = { place: undefined as unknown as Place, left: leftBytes, turns: 0 };
  read.place = streams.enter(origin, { leftBytes: () => read.left, onFirst: () => read.turns++ });
  return read;
}

test("of the reads of one origin the one with the least to come is first, of equals the earliest; the next one's turn comes when it leaves", () => {
  const streams = new ExtraStreams();
  const [first, second, short] = [enter(streams, "http://a", 100), enter(streams, "http://a", 100), enter(streams, "http://a", 10)];
  const isFirst = (): boolean[] => [first, second, short].map(({ place }) => place.isFirst);
  assert.deepEqual(isFirst(), [false, false, true]);
  assert.deepEqual([first.turns, second.turns, short.turns], [1, 0, 1], "told at once");
  second.left = 90;
  short.place.leave();
  assert.deepEqual([first.turns, second.turns], [1, 1]);
  assert.deepEqual([first.place.isFirst, second.place.isFirst], [false, true]);
  second.place.leave();
  assert.equal(first.turns, 2);
  first.place.leave();
});

test("whose the extra streams are keeps them, unless another has less than half as much to come", () => {
  const streams = new ExtraStreams();
  const [first, second] = [enter(streams, "http://a", 100), enter(streams, "http://a", 100)];
  second.left = 51;
  assert.deepEqual([first.place.isFirst, second.place.isFirst], [true, false]);
  second.left = 49;
  assert.deepEqual([first.place.isFirst, second.place.isFirst], [false, true]);
  first.left = 40;
  assert.ok(second.place.isFirst);
});

test("reads of other origins do not come in each other's way", () => {
  const streams = new ExtraStreams();
  const [here, there] = [enter(streams, "http://a", 100), enter(streams, "http://b", 10)];
  assert.ok(here.place.isFirst && there.place.isFirst);
  here.place.leave();
  assert.ok(enter(streams, "http://a", 1000).place.isFirst);
});
