import assert from "node:assert/strict";
import { test } from "node:test";
import type { TaskId } from "../../protocol/ids.ts";
import { PIECE_SIGNATURE_BYTES_MAX, pieceStatement, SIGNATURE_BYTES } from "../../protocol/link-frames.ts";
import { SignatureVerifier, SigningKey } from "./credentials.ts";
import { SIGNED_TOGETHER_MAX, signedOf, signTogether } from "./piece-signature.ts";

const taskId = "a".repeat(64) as TaskId;
const key = SigningKey.generate();
const verifier = new SignatureVerifier(key.publicKey);

function statementsOf(count: number): readonly Uint8Array[] {
  return Array.from({ length: count }, (_, piece) => pieceStatement(taskId, piece, 1024, new Uint8Array(32).fill(piece + 1)));
}

function isGood(statement: Uint8Array, signature: Uint8Array): boolean {
  const signed = signedOf(statement, signature);
  return signed !== undefined && signed.signature.length === SIGNATURE_BYTES && verifier.verify(signed.statement, signed.signature);
}

test("each of several pieces signed together proves itself, and none passes for another", () => {
  for (let count = 1; count <= SIGNED_TOGETHER_MAX; count++) {
    const statements = statementsOf(count);
    let signCount = 0;
    const signatures = signTogether(statements, (statement) => {
      signCount++;
      return key.sign(statement);
    });
    assert.equal(signCount, 1);
    assert.equal(signatures.length, count);
    signatures.forEach((signature, at) => {
      assert.ok(signature.length <= PIECE_SIGNATURE_BYTES_MAX);
      statements.forEach((statement, other) => assert.equal(isGood(statement, signature), at === other, `${count} pieces, the signature of ${at} for ${other}`));
    });
  }
});

test("pieces signed together come to one statement and one signature, which are to be checked once", () => {
  const statements = statementsOf(7);
  const signed = signTogether(statements, (statement) => key.sign(statement)).map((signature, at) => signedOf(statements[at] as Uint8Array, signature));
  assert.equal(new Set(signed.map((each) => Buffer.concat([each?.statement ?? Buffer.alloc(0), each?.signature ?? Buffer.alloc(0)]).toString("hex"))).size, 1);
});

test("no bit of a signature may differ, and nothing may be missing or added", () => {
  const statements = statementsOf(11);
  const signatures = signTogether(statements, (statement) => key.sign(statement));
  for (const at of [0, 5, 10]) {
    const signature = signatures[at] as Uint8Array;
    const statement = statements[at] as Uint8Array;
    for (let bit = 0; bit < signature.length * 8; bit++) {
      const other = Uint8Array.from(signature);
      (other[bit >> 3] as number) ^= 1 << (bit & 7);
      assert.equal(isGood(statement, other), false, `bit ${bit} of the signature of ${at}`);
    }
    for (let length = 0; length < signature.length; length++) assert.equal(isGood(statement, signature.subarray(0, length)), false, `${length} bytes`);
    assert.equal(isGood(statement, Buffer.concat([signature, new Uint8Array(32)])), false);
  }
});

test("a node of the tree passes for no piece, and a piece's statement for no tree", () => {
  const statements = statementsOf(2);
  const [first = new Uint8Array(0)] = signTogether(statements, (statement) => key.sign(statement));
  const { statement } = signedOf(statements[0] as Uint8Array, first) ?? assert.fail();
  assert.equal(isGood(statement, first.subarray(0, SIGNATURE_BYTES)), true, "the tree's own");
  assert.equal(statement.length === (statements[0] as Uint8Array).length, false);
  assert.notDeepEqual(statement.subarray(0, 16), (statements[0] as Uint8Array).subarray(0, 16));
});
