import assert from "node:assert/strict";
import { describe, test } from "node:test";
import type { TaskId } from "../protocol/ids.ts";
import { EarlyJoins } from "./early-joins.ts";
import type { Link } from "./link/link.ts";

const TASK = "a".repeat(64) as TaskId;
const OTHER_TASK = "b".repeat(64) as TaskId;

function linkOf(): Link {
  return { closed: false } as Link;
}

function joinOf(taskId: TaskId, channel: number, have: Uint8Array = new Uint8Array()): Parameters<EarlyJoins["joined"]>[1] {
  return { type: "join", channel, taskId, ticket: "", have };
}

function typesOf(early: EarlyJoins, taskId: TaskId): readonly (readonly string[])[] {
  return early.opened(taskId).map(({ frames }) => frames.map(({ type }) => type));
}

describe("early joins", () => {
  test("are told once, with what came on their channel since, in order", () => {
    const early = new EarlyJoins();
    const [one, other] = [linkOf(), linkOf()];
    early.joined(one, joinOf(TASK, 1));
    early.joined(other, joinOf(TASK, 1));
    early.joined(one, joinOf(OTHER_TASK, 2));
    early.heard(one, { type: "imports", channel: 1, buckets: 3 });
    early.heard(one, { type: "have", channel: 1, pieces: [7] });
    early.heard(one, { type: "have", channel: 9, pieces: [7] });
    assert.deepEqual(typesOf(early, TASK), [["join", "imports", "have"], ["join"]]);
    assert.deepEqual(typesOf(early, TASK), []);
    assert.deepEqual(typesOf(early, OTHER_TASK), [["join"]]);
  });

  test("come with what was wanted just before them, once", () => {
    const early = new EarlyJoins();
    const [one, other] = [linkOf(), linkOf()];
    early.heard(one, { type: "want", channel: 1, pieces: [4, 5] });
    early.heard(other, { type: "want", channel: 7, pieces: [6] });
    assert.deepEqual(early.wantedWith(one, 2), []);
    assert.deepEqual(early.wantedWith(one, 1), [4, 5]);
    assert.deepEqual(early.wantedWith(one, 1), []);
    early.joined(other, joinOf(TASK, 7));
    assert.deepEqual(typesOf(early, TASK), [["want", "join"]]);
    early.heard(one, { type: "want", channel: 1, pieces: [4] });
    early.linkClosed(one);
    assert.deepEqual(early.wantedWith(one, 1), []);
  });

  test("outlive the buffer that they were read into", () => {
    const early = new EarlyJoins();
    const buffer = Uint8Array.of(0b101);
    early.joined(linkOf(), joinOf(TASK, 1, buffer));
    buffer.fill(0xff);
    const [frame] = early.opened(TASK)[0]?.frames ?? [];
    assert.deepEqual(frame?.type === "join" ? [...frame.have] : undefined, [0b101]);
  });

  test("are forgotten with a leave, another join on their channel, and the link", () => {
    const early = new EarlyJoins();
    const [leaves, joinsAnew, closes] = [linkOf(), linkOf(), linkOf()];
    early.joined(leaves, joinOf(TASK, 1));
    early.heard(leaves, { type: "leave", channel: 1 });
    early.joined(joinsAnew, joinOf(TASK, 1));
    early.joined(joinsAnew, joinOf(OTHER_TASK, 1));
    early.joined(closes, joinOf(TASK, 1));
    early.linkClosed(closes);
    assert.deepEqual(typesOf(early, TASK), []);
    assert.deepEqual(typesOf(early, OTHER_TASK), [["join"]]);
  });

  test("are bounded in number, in what is kept of each, and in size", () => {
    const early = new EarlyJoins();
    const link = linkOf();
    for (let channel = 1; channel <= 300; channel++) early.joined(link, joinOf(TASK, channel));
    for (let i = 0; i < 100; i++) early.heard(link, { type: "have", channel: 300, pieces: [i] });
    early.joined(link, joinOf(TASK, 301, new Uint8Array(64 * 1024 + 1)));
    const kept = early.opened(TASK);
    assert.equal(kept.length, 256);
    assert.equal(kept.at(-1)?.frames.length, 16);
    early.joined(link, joinOf(TASK, 1));
    early.heard(link, { type: "have", channel: 1, pieces: Array.from({ length: 257 }, (_, piece) => piece) });
    assert.deepEqual(typesOf(early, TASK), [["join"]]);
  });
});
