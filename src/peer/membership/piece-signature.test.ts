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

test("the tree is that of RFC 6962", () => {
  // Certificate Transparency's reference data.
  const leaves = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"].map((hex) => Buffer.from(hex, "hex"));
  const roots = new Map([
    [2, "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"],
    [3, "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"],
    [5, "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4"],
    [8, "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"],
  ]);
  for (const [count, root] of roots) {
    signTogether(leaves.slice(0, count), (statement) => {
      assert.equal(Buffer.from(statement).toString("latin1", 0, 16), "dragonfly/ptree1");
      assert.equal(Buffer.from(statement).toString("hex", 16), `${count.toString(16).padStart(8, "0")}${root}`);
      return new Uint8Array(SIGNATURE_BYTES);
    });
  }
});

test("a tree of more than sixteen is none", () => {
  const statements = statementsOf(SIGNED_TOGETHER_MAX + 1);
  const signatures = signTogether(statements, (statement) => key.sign(statement));
  signatures.forEach((signature, at) => assert.equal(signedOf(statements[at] as Uint8Array, signature), undefined));
});
