import assert from "node:assert/strict";
import { test } from "node:test";
import { handshakeSchema, proofText, PROTOCOL_VERSION } from "./handshake.ts";
import type { PeerId } from "./ids.ts";

const NONCE = "A".repeat(22);
const PROOF = "b".repeat(43);

function accepts(step: unknown): boolean {
  return handshakeSchema.safeParse(step).success;
}

test("the four steps are accepted as documented, whatever a later version adds", () => {
  assert.ok(accepts({ type: "challenge", version: PROTOCOL_VERSION, nonce: NONCE }));
  assert.ok(accepts({ type: "hello", version: PROTOCOL_VERSION, peerId: "host-01", nonce: NONCE, proof: PROOF, zone: "a" }));
  assert.ok(accepts({ type: "welcome", peerId: "host-01", proof: PROOF }));
  assert.ok(accepts({ type: "refused", code: "TOKEN_REFUSED", message: "no" }));
});

test("anything else is refused", () => {
  const hello = { type: "hello", version: 1, peerId: "host-01", nonce: NONCE, proof: PROOF };
  for (const step of [
    undefined,
    null,
    "hello",
    [],
    {},
    { type: "goodbye" },
    { ...hello, version: "1" },
    { ...hello, version: 1.5 },
    { ...hello, peerId: "" },
    { ...hello, peerId: "a b" },
    { ...hello, nonce: "A".repeat(21) },
    { ...hello, nonce: "A".repeat(23) },
    { ...hello, nonce: `${"A".repeat(21)}+` },
    { ...hello, proof: "" },
    { ...hello, proof: `${PROOF}b` },
    { type: "challenge", version: 1 },
    { type: "refused", code: "X".repeat(65), message: "" },
    { type: "refused", code: "X", message: "m".repeat(1_025) },
  ]) {
    assert.ok(!accepts(step), JSON.stringify(step));
  }
});

test("the two proofs of one connection, and those of any other, are over different texts", () => {
  const [one, other] = ["a-1" as PeerId, "a-2" as PeerId];
  const texts = [
    proofText("dial", NONCE, "B".repeat(22), one, ""),
    proofText("listen", NONCE, "B".repeat(22), one, ""),
    proofText("dial", "B".repeat(22), NONCE, one, ""),
    proofText("dial", NONCE, "B".repeat(22), other, ""),
    proofText("dial", NONCE, "B".repeat(22), one, "C".repeat(43)),
    proofText("dial", NONCE, "B".repeat(22), one, "D".repeat(43)),
  ];
  assert.equal(new Set(texts).size, texts.length);
  assert.equal(texts[0], `dragonfly/1 dial ${NONCE} ${"B".repeat(22)} a-1`);
});
