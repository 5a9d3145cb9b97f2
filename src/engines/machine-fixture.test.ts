/** A machine's root directory to set up, in the temporary folder. */
import { chmodSync, lstatSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after } from "node:test";
import type { EngineFiles, MirrorTarget, ProgramVersion } from "./engine.ts";

export const ADDRESS = "127.0.0.1:65001";
export const ALL: MirrorTarget = { address: ADDRESS, registries: undefined, known: [] };

export function only(...registries: readonly string[]): MirrorTarget {
  return { ...ALL, registries };
}

export function fixture(name: string): string {
  return readFileSync(join(import.meta.dirname, "fixtures", name), "utf8");
}

/** Files in memory: what an engine would read. */
export function filesOf(texts: Readonly<Record<string, string>>, versions: Readonly<Record<string, string>> = {}): EngineFiles {
  const isUnder = (path: string, directory: string): boolean => path.startsWith(`${directory}/`);
  return {
    read: (path) => texts[path],
    list: (directory) => {
      const names = Object.keys(texts).filter((path) => isUnder(path, directory));
      return [...new Set(names.map((path) => path.slice(directory.length + 1).split("/", 1)[0] ?? ""))].toSorted();
    },
    exists: (path) => texts[path] !== undefined || Object.keys(texts).some((other) => isUnder(other, path)),
    programVersion: (name): ProgramVersion | undefined => {
      const [major, minor] = (versions[name] ?? "").split(".").map(Number);
      return versions[name] === undefined ? undefined : { text: versions[name], major: major ?? 0, minor: minor ?? 0 };
    },
  };
}

export class MachineRoot {
  readonly path: string = mkdtempSync(join(tmpdir(), "engines-"));

  constructor() {
    after(() => rmSync(this.path, { recursive: true, force: true }));
  }

  write(path: string, content: string | Buffer, mode = 0o644): void {
    const real = join(this.path, path);
    mkdirSync(dirname(real), { recursive: true });
    writeFileSync(real, content);
    chmodSync(real, mode);
  }

  link(path: string, target: string): void {
    mkdirSync(dirname(join(this.path, path)), { recursive: true });
    symlinkSync(target, join(this.path, path));
  }

  text(path: string): string {
    return readFileSync(join(this.path, path), "utf8");
  }

  /** Everything under a directory: kind, mode, owner and content by path. */
  snapshot(directory = "etc"): Readonly<Record<string, string>> {
    const found: Record<string, string> = {};
    const walk = (at: string): void => {
      for (const name of readdirSync(join(this.path, at)).toSorted()) {
        const path = join(at, name);
        const real = join(this.path, path);
        const { mode, uid, gid } = lstatSync(real);
        const kind = lstatSync(real);
        const content = kind.isSymbolicLink() ? readlinkSync(real) : kind.isDirectory() ? "" : readFileSync(real, "latin1");
        found[path] = `${mode.toString(8)} ${uid}:${gid} ${content}`;
        if (kind.isDirectory()) walk(path);
      }
    };
    walk(directory);
    return found;
  }
}
