import assert from "node:assert/strict";
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { clientFolder, folderForCode } from "./compiled-code.ts";
import { cacheDirectory, type Machine } from "./machine.ts";

function place(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), "dragonfly-compiled-"));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

function machine(facts: Partial<Machine>): Machine {
  return { env: {}, isRoot: false, home: "/home/u", canWrite: () => true, ...facts };
}

test("compiled code has a private folder of this version; those of others go", (t) => {
  const data = join(place(t), "data");
  mkdirSync(join(data, "compiled/0.9/x"), { recursive: true });
  chmodSync(data, 0o700);
  assert.equal(folderForCode(data, "1.0"), join(data, "compiled/1.0"));
  assert.deepEqual(readdirSync(join(data, "compiled")), ["1.0"]);
  assert.equal(statSync(join(data, "compiled/1.0")).mode & 0o777, 0o700);
});

test("nothing is executed that somebody else could have put there", (t) => {
  for (const shared of ["", "compiled", "compiled/1.0"]) {
    const data = place(t);
    mkdirSync(join(data, "compiled/1.0"), { recursive: true, mode: 0o700 });
    chmodSync(join(data, shared), 0o770);
    assert.equal(folderForCode(data, "1.0"), undefined, shared);
  }
  const [data, elsewhere] = [place(t), place(t)];
  symlinkSync(elsewhere, join(data, "compiled"));
  assert.equal(folderForCode(data, "1.0"), undefined, "a link");
});

test("a command's compiled code lies in its user's cache folder, unless others may write there", (t) => {
  const home = place(t);
  assert.equal(clientFolder(machine({ home }), "1.0"), join(home, ".cache/dragonfly/compiled/1.0"));
  chmodSync(join(home, ".cache"), 0o777);
  assert.equal(clientFolder(machine({ home }), "1.0"), undefined);
});

test("the cache folder is root's own even where HOME is somebody else's; XDG_CACHE_HOME counts when it is absolute", () => {
  assert.equal(cacheDirectory(machine({ isRoot: true })), "/var/cache/dragonfly");
  assert.equal(cacheDirectory(machine({ env: { XDG_CACHE_HOME: "/c" } })), "/c/dragonfly");
  assert.equal(cacheDirectory(machine({ env: { XDG_CACHE_HOME: "c" } })), "/home/u/.cache/dragonfly");
});
