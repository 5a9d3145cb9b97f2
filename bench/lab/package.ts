/** The programs as they ship: compiled, so that no process of a run spends its time on taking types away. */
import { execFileSync } from "node:child_process";
import { cpSync, mkdtempSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { REPOSITORY } from "./process.ts";

let built: string | undefined;

/** Where the package's `bin` folder is; built at the first call, removed when the lab ends. */
export function shippedBin(): string {
  if (built === undefined) {
    const directory = mkdtempSync(join(tmpdir(), "dragonfly-package-"));
    process.on("exit", () => rmSync(directory, { recursive: true, force: true }));
    execFileSync(
      join(REPOSITORY, "node_modules/.bin/tsc"),
      ["-p", "tsconfig.build.json", "--outDir", join(directory, "dist")],
      { cwd: REPOSITORY, stdio: "inherit" },
    );
    for (const name of ["bin", "package.json"]) cpSync(join(REPOSITORY, name), join(directory, name), { recursive: true });
    symlinkSync(join(REPOSITORY, "node_modules"), join(directory, "node_modules"));
    built = join(directory, "bin");
  }
  return built;
}
