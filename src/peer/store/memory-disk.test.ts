/**
 * A file system in memory that keeps a log of all that is done to it, and can say what a power cut at any moment may
 * leave: what was synced, and of the rest any part, in any order, torn anywhere. No tests of its own.
 */
import { createHash } from "node:crypto";
import { basename, dirname, join, relative } from "node:path";
import type { Prng } from "../../base/prng.ts";
import type { DiskFile, FileFacts, OpenMode, StoreDisk } from "./disk.ts";
import { pieceDigest } from "./piece-hash.ts";
import type { StoreRunner } from "./pool.ts";
import type { StoreJobKind, StoreJobs } from "./worker.ts";

interface FileNode {
  readonly kind: "file";
  bytes: Uint8Array;
  modified: number;
}

interface DirectoryNode {
  readonly kind: "directory";
  readonly names: Map<string, Node>;
}

type Node = FileNode | DirectoryNode;

interface Place {
  readonly directory: DirectoryNode;
  readonly name: string;
}

/** One thing done. Nodes are those of the disk that it was done to. */
type Operation =
  | { readonly kind: "write"; readonly file: FileNode; readonly offsetByte: number; readonly bytes: Uint8Array }
  | { readonly kind: "truncate"; readonly file: FileNode; readonly lengthBytes: number }
  | { readonly kind: "link"; readonly at: Place; readonly node: Node }
  | { readonly kind: "rename"; readonly from: Place; readonly to: Place; readonly node: Node }
  | { readonly kind: "unlink"; readonly at: Place; readonly node: Node }
  | { readonly kind: "sync"; readonly node: Node };

/** Which part of what was not synced survives. */
export type Survival = "none" | "all" | Prng;

export class MemoryDisk implements StoreDisk {
  readonly log: Operation[] = [];
  readonly #rootPath: string;
  readonly #root: DirectoryNode;
  /** What was there at the start, as it was: on the device. */
  readonly #initial = new Map<Node, Uint8Array | ReadonlyMap<string, Node>>();
  readonly #open = new Map<number, FileNode>();
  #nextFd = 1;
  #clock = 1_000_000;

  /** @param rootPath what stands before all paths */
  constructor(rootPath: string, root: DirectoryNode = { kind: "directory", names: new Map() }) {
    this.#rootPath = rootPath;
    this.#root = root;
    this.#keep(root);
  }

  open(path: string, mode: OpenMode): Promise<DiskFile> {
    return attempt(() => {
      const at = this.#place(path);
      let node = at.directory.names.get(at.name);
      if (node?.kind === "directory") throw systemError("EISDIR");
      if (node === undefined) {
        if (mode === "read" || mode === "edit") throw systemError("ENOENT");
        node = { kind: "file", bytes: new Uint8Array(0), modified: this.#clock++ };
        this.#do({ kind: "link", at, node });
      } else if (mode === "replace") {
        this.#do({ kind: "truncate", file: node, lengthBytes: 0 });
      }
      return this.#handle(node);
    });
  }

  makeDirectory(path: string): Promise<void> {
    return attempt(() => {
      const at = this.#place(path);
      if (at.directory.names.has(at.name)) throw systemError("EEXIST");
      this.#do({ kind: "link", at, node: { kind: "directory", names: new Map() } });
    });
  }

  list(path: string): Promise<string[]> {
    return attempt(() => [...this.#directory(path).names.keys()]);
  }

  rename(from: string, to: string): Promise<void> {
    return attempt(() => {
      const source = this.#place(from);
      const node = source.directory.names.get(source.name);
      if (node === undefined) throw systemError("ENOENT");
      this.#do({ kind: "rename", from: source, to: this.#place(to), node });
    });
  }

  remove(path: string): Promise<void> {
    return attempt(() => {
      const at = this.#place(path);
      const node = at.directory.names.get(at.name);
      if (node !== undefined) this.#removeTree(at, node);
    });
  }

  syncDirectory(path: string): Promise<void> {
    return attempt(() => this.#do({ kind: "sync", node: this.#directory(path) }));
  }

  async facts(path: string): Promise<FileFacts | undefined> {
    await Promise.resolve();
    try {
      const at = this.#place(path);
      const node = at.directory.names.get(at.name);
      return node?.kind === "file" ? { lengthBytes: node.bytes.length, modifiedUnixMs: node.modified } : undefined;
    } catch {
      return undefined;
    }
  }

  freeBytes(): Promise<number> {
    return Promise.resolve(Infinity);
  }

  /** The store's threads, on this disk. */
  runner(): StoreRunner {
    const run = <K extends StoreJobKind>(kind: K, input: StoreJobs[K]["input"]): Promise<StoreJobs[K]["output"]> =>
      attempt(() => this.#job(kind, input) as StoreJobs[K]["output"]);
    return { run, isBusy: false, close: () => Promise.resolve() };
  }

  /** A disk as a power cut after the first `count` operations may leave this one. */
  afterPowerCut(count: number, survival: Survival): MemoryDisk {
    const done = this.log.slice(0, count);
    const copies = new Map<Node, Node>();
    const copyOf = <N extends Node>(node: N): N => {
      const known = copies.get(node);
      if (known !== undefined) return known as N;
      const initial = this.#initial.get(node);
      if (node.kind === "file") {
        copies.set(node, { kind: "file", bytes: Uint8Array.from((initial ?? []) as Uint8Array), modified: node.modified });
      } else {
        const names = new Map<string, Node>();
        copies.set(node, { kind: "directory", names });
        for (const [name, child] of (initial ?? []) as Iterable<[string, Node]>) names.set(name, copyOf(child));
      }
      return copyOf(node);
    };
    // From the end: what a later sync covers is durable.
    const synced = new Set<Node>();
    const isDurable = done.map(() => false);
    for (let at = done.length - 1; at >= 0; at--) {
      const operation = done[at] as Operation;
      if (operation.kind === "sync") synced.add(operation.node);
      else isDurable[at] = nodesOf(operation).some((node) => synced.has(node));
    }
    for (const [at, operation] of done.entries()) {
      if (operation.kind === "sync") continue;
      const fate = isDurable[at] ? "kept" : fateOf(operation, survival);
      if (fate !== "lost") redo(operation, fate, copyOf);
    }
    return new MemoryDisk(this.#rootPath, copyOf(this.#root));
  }

  #job(kind: StoreJobKind, input: StoreJobs[StoreJobKind]["input"]): unknown {
    const file = this.#open.get(input.fd);
    if (file === undefined) throw systemError("EBADF");
    if ("bytes" in input) {
      const digest = pieceDigest(input.bytes);
      if ("digest" in input && Buffer.compare(digest, input.digest) !== 0) return "mismatch";
      this.#write(file, input.bytes, input.offsetByte);
      return kind === "verifyAndWrite" ? "written" : Uint8Array.from(digest);
    }
    if ("pieces" in input) {
      const isRight = ({ offsetByte, lengthBytes, digest }: (typeof input.pieces)[number]): boolean => {
        const bytes = file.bytes.subarray(offsetByte, offsetByte + lengthBytes);
        return bytes.length === lengthBytes && Buffer.compare(pieceDigest(bytes), digest) === 0;
      };
      return input.pieces.filter((piece) => !isRight(piece)).map(({ piece }) => piece);
    }
    if (file.bytes.length < input.lengthBytes) return undefined;
    return createHash(input.algorithm).update(file.bytes.subarray(0, input.lengthBytes)).digest("hex");
  }

  #handle(file: FileNode): DiskFile {
    const fd = this.#nextFd++;
    this.#open.set(fd, file);
    return {
      fd,
      read: (into, offsetByte) =>
        attempt(() => {
          const bytes = file.bytes.subarray(offsetByte, offsetByte + into.length);
          into.set(bytes);
          return bytes.length;
        }),
      writeSync: (bytes, offsetByte) => this.#write(file, bytes, offsetByte),
      preallocate: () => undefined,
      facts: () => attempt(() => ({ lengthBytes: file.bytes.length, modifiedUnixMs: file.modified })),
      truncate: (lengthBytes) => attempt(() => this.#do({ kind: "truncate", file, lengthBytes })),
      sync: () => attempt(() => this.#do({ kind: "sync", node: file })),
      close: () => attempt(() => void this.#open.delete(fd)),
    };
  }

  #write(file: FileNode, bytes: Uint8Array, offsetByte: number): void {
    this.#do({ kind: "write", file, offsetByte, bytes: Uint8Array.from(bytes) });
  }

  #do(operation: Operation): void {
    this.log.push(operation);
    if (operation.kind === "write" || operation.kind === "truncate") operation.file.modified = this.#clock++;
    if (operation.kind !== "sync") redo(operation, "kept", (node) => node);
  }

  #removeTree(at: Place, node: Node): void {
    if (node.kind === "directory") for (const [name, child] of node.names) this.#removeTree({ directory: node, name }, child);
    this.#do({ kind: "unlink", at, node });
  }

  #keep(node: Node): void {
    this.#initial.set(node, node.kind === "file" ? Uint8Array.from(node.bytes) : new Map(node.names));
    if (node.kind === "directory") for (const child of node.names.values()) this.#keep(child);
  }

  #directory(path: string): DirectoryNode {
    let node: Node | undefined = this.#root;
    for (const name of relative(this.#rootPath, path).split("/")) {
      if (name === "") continue;
      node = node?.kind === "directory" ? node.names.get(name) : undefined;
    }
    if (node?.kind !== "directory") throw systemError("ENOENT");
    return node;
  }

  #place(path: string): Place {
    return { directory: this.#directory(dirname(join(path))), name: basename(path) };
  }
}

/** How much of a write survives: all, its first bytes, or its length with zeros for the first bytes. */
type Fate = "kept" | "lost" | { readonly firstBytes: number } | { readonly zeroBytes: number };

function fateOf(operation: Operation, survival: Survival): Fate {
  if (survival === "none") return "lost";
  if (survival === "all") return "kept";
  const choice = survival.below(8);
  if (choice < 3) return "kept";
  if (operation.kind !== "write" || choice < 5) return choice < 6 ? "lost" : "kept";
  const bytes = survival.below(operation.bytes.length + 1);
  return choice < 7 ? { firstBytes: bytes } : { zeroBytes: bytes };
}

/** What has to be synced for the operation to be durable; either directory of a rename, for it is one change. */
function nodesOf(operation: Exclude<Operation, { kind: "sync" }>): readonly Node[] {
  switch (operation.kind) {
    case "write":
    case "truncate":
      return [operation.file];
    case "link":
    case "unlink":
      return [operation.at.directory];
    case "rename":
      return [operation.from.directory, operation.to.directory];
  }
}

function redo(operation: Exclude<Operation, { kind: "sync" }>, fate: Exclude<Fate, "lost">, nodeOf: <N extends Node>(node: N) => N): void {
  switch (operation.kind) {
    case "write": {
      const file = nodeOf(operation.file);
      const { offsetByte } = operation;
      const whole = operation.bytes;
      const bytes = fate === "kept" ? whole : "firstBytes" in fate ? whole.subarray(0, fate.firstBytes) : Uint8Array.from(whole).fill(0, 0, fate.zeroBytes);
      resize(file, Math.max(file.bytes.length, offsetByte + bytes.length));
      file.bytes.set(bytes, offsetByte);
      return;
    }
    case "truncate":
      return resize(nodeOf(operation.file), operation.lengthBytes);
    case "link":
      nodeOf(operation.at.directory).names.set(operation.at.name, nodeOf(operation.node));
      return;
    case "rename": {
      const { from, to, node } = operation;
      unlink(nodeOf(from.directory), from.name, nodeOf(node));
      nodeOf(to.directory).names.set(to.name, nodeOf(node));
      return;
    }
    case "unlink":
      return unlink(nodeOf(operation.at.directory), operation.at.name, nodeOf(operation.node));
  }
}

/** A name may mean another file by now, if the operations between were lost. */
function unlink({ names }: DirectoryNode, name: string, node: Node): void {
  if (names.get(name) === node) names.delete(name);
}

function resize(file: FileNode, lengthBytes: number): void {
  if (file.bytes.length === lengthBytes) return;
  const bytes = new Uint8Array(lengthBytes);
  bytes.set(file.bytes.subarray(0, lengthBytes));
  file.bytes = bytes;
}

function systemError(code: string): Error {
  return Object.assign(new Error(code), { code });
}

// As the system's: never within the call.
async function attempt<T>(work: () => T): Promise<T> {
  await Promise.resolve();
  return work();
}
