import assert from "node:assert/strict";
import { test } from "node:test";
import { bencode } from "./torrent.ts";

test("bencoding sorts keys and measures strings in bytes", () => {
  assert.equal(bencode({ b: [1, "é"], a: -3, c: {} }).toString(), "d1:ai-3e1:bli1e2:ée1:cdee");
});

test("bencoding keeps binary strings as they are", () => {
  assert.deepEqual(bencode(Uint8Array.of(0, 255)), Buffer.from([0x32, 0x3a, 0, 255]));
});
