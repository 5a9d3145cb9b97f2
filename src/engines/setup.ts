/** Brings the engines' files to what their plans say, and back to what they were. */
import { dirname } from "node:path";
import { AppError } from "../base/errors.ts";
import { isContainerdHere, planContainerd } from "./containerd.ts";
import { isContainersEngine, isContainersHere, planContainers } from "./containers.ts";
import { isDockerHere, planDocker } from "./docker.ts";
import { ENGINE_NAMES, type EngineFiles, type EngineName, type EnginePlan, type MirrorTarget } from "./engine.ts";
import { decode, type FileState, type HostFiles } from "./host-files.ts";
import { isSameState, isWritten, recorded, type RecordEntry, SetupRecord } from "./setup-record.ts";

export interface FileChange {
  readonly engine: EngineName;
  readonly path: string;
  readonly action: "create" | "change" | "restore" | "remove";
  /** Undefined: there is no file. */
  readonly before: FileState | undefined;
  readonly after: FileState | undefined;
  /** What makes a running engine go by it; undefined: nothing needs to. */
  readonly command: string | undefined;
}

/** What is to be done, or was. */
export interface SetupPlan {
  readonly engines: readonly EngineName[];
  readonly changes: readonly FileChange[];
  readonly notes: readonly Remark[];
  /** What could not be planned, and what to do about it. */
  readonly problems: readonly Remark[];
}

export interface Remark {
  readonly engine: EngineName;
  readonly text: string;
}

export class EngineSetup {
  readonly #host: HostFiles;
  readonly #record: SetupRecord;

  /** @param recordDirectory where is remembered what was there before @throws AppError CACHE_CORRUPT, DISK_FAILED */
  constructor(host: HostFiles, recordDirectory: string) {
    this.#host = host;
    this.#record = SetupRecord.load(host, recordDirectory);
  }

  /**
   * What makes `engines` use the mirror. It replaces what an earlier setup did to them: their files are planned from
   * what they were before it, unless somebody has changed them since.
   */
  plan(engines: readonly EngineName[], mirror: MirrorTarget): SetupPlan {
    const changes: FileChange[] = [];
    const notes: Remark[] = [];
    const problems: Remark[] = [];
    const planned = new Set<string>();
    for (const engine of engines) {
      const plan = this.#planEngine(engine, mirror);
      notes.push(...plan.notes.map((text) => ({ engine, text })));
      problems.push(...plan.problems.map((text) => ({ engine, text })));
      if (plan.problems.length > 0) {
        // Nothing is taken back either, of what an earlier setup did.
        for (const entry of this.#record.entries) if (entry.engine === engine) planned.add(entry.path);
      }
      for (const { path, text } of plan.files) {
        // CRI-O and podman share their file.
        if (planned.has(path)) continue;
        planned.add(path);
        const before = this.#host.state(path);
        const bytes = Buffer.from(text);
        if (before?.bytes.equals(bytes) === true) continue;
        const owner = before ?? { mode: 0o644, uid: process.geteuid?.() ?? 0, gid: process.getegid?.() ?? 0 };
        const action = before === undefined ? "create" : "change";
        changes.push({ engine, path, action, before, after: { ...owner, bytes }, command: commandFor(engine, path) });
      }
    }
    const left = this.#record.entries.filter(({ engine, path }) => engines.includes(engine) && !planned.has(path));
    const undone = this.#undo(left);
    return {
      engines,
      changes: [...changes, ...undone.changes],
      notes: [...notes, ...undone.problems],
      problems,
    };
  }

  /** What takes an earlier setup of `engines` back. */
  planUndo(engines: readonly EngineName[]): SetupPlan {
    const undone = this.#undo(this.#record.entries.filter(({ engine }) => engines.includes(engine)));
    return { engines, notes: [], ...undone };
  }

  /** @throws AppError OUTPUT_UNWRITABLE: before the first change when this user may not make them all */
  apply(plan: SetupPlan): void {
    for (const { path } of plan.changes) this.#host.checkWritable(path);
    if (plan.changes.length > 0) this.#host.checkWritable(this.#record.path);
    for (const change of plan.changes) {
      if (change.action === "restore" || change.action === "remove") this.#takeBack(change);
      else this.#bringIn(change);
    }
    // Of what was as before already, an earlier undo may have been cut off before it forgot.
    for (const { path, original } of this.#record.entries) {
      if (isSameState(this.#host.state(path), original)) this.#record.drop(path);
    }
  }

  #planEngine(engine: EngineName, mirror: MirrorTarget): EnginePlan {
    const files = this.#filesBefore();
    try {
      if (engine === "containerd") return planContainerd(files, mirror);
      if (engine === "docker") return planDocker(files, mirror);
      return planContainers(files, mirror, engine);
    } catch (thrown) {
      if (!(thrown instanceof AppError)) throw thrown;
      return { engine, files: [], notes: [], problems: [thrown.message] };
    }
  }

  /** The files as they were before setup, where nobody has touched them since. */
  #filesBefore(): EngineFiles {
    const host = this.#host;
    const untouched = (path: string): RecordEntry | undefined => {
      const entry = this.#record.find(path);
      return entry !== undefined && isWritten(host.state(path), entry) ? entry : undefined;
    };
    return {
      read: (path) => {
        const entry = untouched(path);
        if (entry === undefined) return host.read(path);
        const original = this.#record.original(entry);
        return original === undefined ? undefined : decode(original.bytes, path);
      },
      list: (directory) => host.list(directory),
      exists: (path) => (untouched(path) === undefined ? host.exists(path) : untouched(path)?.original !== null),
      programVersion: (name) => host.programVersion(name),
    };
  }

  #undo(entries: readonly RecordEntry[]): { readonly changes: readonly FileChange[]; readonly problems: readonly Remark[] } {
    const changes: FileChange[] = [];
    const problems: Remark[] = [];
    for (const entry of entries.toReversed()) {
      const { engine, path } = entry;
      const before = this.#host.state(path);
      if (isSameState(before, entry.original)) continue;
      if (!isWritten(before, entry)) {
        const kept = entry.original === null ? "there was no such file before" : `what it was before is in ${this.#record.originalFile(entry.original)}`;
        problems.push({ engine, text: `${path} was changed since setup wrote it and stays as it is; ${kept}` });
        continue;
      }
      const after = this.#record.original(entry);
      const action = after === undefined ? "remove" : "restore";
      changes.push({ engine, path, action, before, after, command: commandFor(engine, path) });
    }
    return { changes, problems };
  }

  #bringIn({ engine, path, before, after }: FileChange): void {
    if (after === undefined) return;
    const known = this.#record.find(path);
    const isUntouched = known !== undefined && before !== undefined && isWritten(before, known);
    const original = isUntouched ? this.#record.original(known) : before;
    const entry = {
      engine,
      path,
      written: recorded(after),
      ...(isUntouched ? { earlier: recorded(before) } : {}),
      original: original === undefined ? null : recorded(original),
    };
    this.#record.put(entry, original, this.#host.missingDirectories(dirname(path)));
    this.#host.makeDirectory(dirname(path));
    this.#host.write(path, after);
  }

  #takeBack({ path, after }: FileChange): void {
    if (after === undefined) this.#host.remove(path);
    else this.#host.write(path, after);
    this.#record.drop(path);
  }
}

/** The engines whose programs or configuration are there. */
export function enginesHere(files: EngineFiles): readonly EngineName[] {
  return ENGINE_NAMES.filter((engine) => {
    if (engine === "containerd") return isContainerdHere(files);
    if (engine === "docker") return isDockerHere(files);
    return isContainersEngine(engine) && isContainersHere(files, engine);
  });
}

/** What makes a running engine go by a changed file; hosts.toml and podman's files are read at each pull. */
function commandFor(engine: EngineName, path: string): string | undefined {
  if (path.endsWith("/hosts.toml")) return undefined;
  return COMMANDS[engine];
}

const COMMANDS: Readonly<Record<EngineName, string | undefined>> = {
  containerd: "systemctl restart containerd",
  docker: "systemctl reload docker",
  "cri-o": "systemctl reload crio",
  podman: undefined,
};
