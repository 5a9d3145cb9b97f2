import assert from "node:assert/strict";
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { folderForCode } from "./compiled-code.ts";

function place(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), "dragonfly-compiled-"));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

test("compiled code has a private folder of this version; those of others go", async (t) => {
  const data = join(place(t), "data");
  mkdirSync(join(data, "compiled/0.9/x"), { recursive: true });
  chmodSync(data, 0o700);
  assert.equal(await folderForCode(data, "1.0"), join(data, "compiled/1.0"));
  assert.deepEqual(readdirSync(join(data, "compiled")), ["1.0"]);
  assert.equal(statSync(join(data, "compiled/1.0")).mode & 0o777, 0o700);
});

test("nothing is executed that somebody else could have put there", async (t) => {
  for (const shared of ["", "compiled", "compiled/1.0"]) {
    const data = place(t);
    mkdirSync(join(data, "compiled/1.0"), { recursive: true, mode: 0o700 });
    chmodSync(join(data, shared), 0o770);
    // oxlint-disable-next-line no-await-in-loop -- one after the other
    assert.equal(await folderForCode(data, "1.0"), undefined, shared);
  }
  const [data, elsewhere] = [place(t), place(t)];
  symlinkSync(elsewhere, join(data, "compiled"));
  assert.equal(await folderForCode(data, "1.0"), undefined, "a link");
});
