/** `supernode cache ls|rm|pin|unpin|verify`: looks at and changes the cache of a running supernode, over its REST API. */
import type { Command } from "commander";
import { z } from "zod";
import { AppError, toAppError } from "../base/errors.ts";
import { isTaskId, type TaskId } from "../protocol/ids.ts";
import { parseListenAddress } from "./addresses.ts";
import type { SUPERNODE_SETTINGS } from "./config-schema.ts";
import { readToken } from "./join-token.ts";
import { supernodeToken } from "./program-config.ts";
import type { Subcommand, SubcommandCall } from "./subcommand.ts";
import { siteTls } from "./site-tls.ts";
import { tlsConfig } from "./site-tls-config.ts";
import { SupernodeApi } from "./supernode-api.ts";
import { showBytes } from "./units.ts";

type Settings = typeof SUPERNODE_SETTINGS;

const taskSchema = z.object({
  taskId: z.custom<TaskId>((value) => typeof value === "string" && isTaskId(value)),
  url: z.string(),
  digest: z.string().nullable(),
  lengthBytes: z.number().nullable(),
  heldBytes: z.number(),
  usedAt: z.iso.datetime(),
  pinned: z.boolean(),
  inUse: z.boolean(),
});
const cacheSchema = z.object({
  usedBytes: z.number(),
  quotaBytes: z.number().nullable(),
  taskCount: z.number(),
  tasks: z.array(taskSchema),
});
const verifiedSchema = z.object({ checkedPieces: z.number(), damagedPieces: z.number() });

type CachedTask = z.infer<typeof taskSchema>;

/** What became of one file. */
interface Outcome {
  readonly taskId: TaskId;
  readonly error?: AppError;
  readonly said: string;
  readonly facts?: Readonly<Record<string, number>>;
}

export const CACHE_COMMANDS: readonly Subcommand<Settings>[] = [
  {
    ...common("ls", "list what is cached"),
    run: list,
  },
  {
    ...common("rm", "remove files from the cache; those in use or pinned stay", true),
    run: (call) => each(call, async (api, { taskId }) => {
      await api.call("DELETE", `/v1/cache/${taskId}`);
      return { taskId, said: "removed" };
    }),
  },
  {
    ...common("pin", "keep files in the cache whatever room is needed", true),
    run: (call) => each(call, async (api, { taskId }) => {
      await api.call("PUT", `/v1/cache/${taskId}/pin`);
      return { taskId, said: "pinned" };
    }),
  },
  {
    ...common("unpin", "let pinned files go when room is needed", true),
    run: (call) => each(call, async (api, { taskId }) => {
      await api.call("DELETE", `/v1/cache/${taskId}/pin`);
      return { taskId, said: "unpinned" };
    }),
  },
  {
    ...common("verify", "read files back from the disk; damaged pieces are dropped and fetched again when wanted", true),
    run: (call) => each(call, async (api, { taskId }) => {
      const facts = parsed(verifiedSchema, await api.call("POST", `/v1/cache/${taskId}/verify`));
      const { checkedPieces, damagedPieces } = facts;
      if (damagedPieces === 0) return { taskId, said: `${checkedPieces} pieces are right`, facts };
      const said = `${damagedPieces} of ${checkedPieces} pieces were damaged, and are dropped`;
      return { taskId, said, facts, error: new AppError("CACHE_CORRUPT", `${said}; check the disk`) };
    }),
  },
];

/** @param hasFiles takes files as arguments, by id */
function common(name: string, summary: string, hasFiles = false): Omit<Subcommand<Settings>, "run"> {
  return {
    name,
    summary,
    group: { name: "cache", summary: "look at and change the cache of a running supernode" },
    takes: ["listen", "dataDir", "joinToken", "joinTokenFile", "tls", "tlsCa", "tlsCert", "tlsKey"],
    declare: (command: Command) => {
      command.option("--supernode <HOST:PORT>", "ask this supernode instead of the one that --listen says");
      command.option("--json", "print JSON, one document");
      if (!hasFiles) return;
      command.argument("[ids...]", "files by their id, or by the start of it");
      command.option("--all", "all that are cached");
    },
  };
}

async function list(call: SubcommandCall<Settings>): Promise<number> {
  const { json } = call.command.opts<{ json?: true }>();
  const { tasks, ...cache } = await fetchAll(apiOf(call));
  if (json === true) {
    process.stdout.write(`${JSON.stringify({ ...cache, tasks }, undefined, 2)}\n`);
    return 0;
  }
  const rows = tasks.map((task) => [
    task.taskId.slice(0, 12),
    showBytes(task.heldBytes),
    task.lengthBytes === null ? "?" : task.lengthBytes === 0 ? "100%" : `${Math.floor((task.heldBytes / task.lengthBytes) * 100)}%`,
    task.usedAt.slice(0, 16).replace("T", " "),
    [task.pinned ? "pinned" : "", task.inUse ? "in use" : ""].filter(Boolean).join(", ") || "-",
    task.digest ?? task.url,
  ]);
  process.stdout.write(table(["ID", "HELD", "OF IT", "USED (UTC)", "STATE", "FILE"], rows));
  const quota = cache.quotaBytes === null ? "no quota" : `a quota of ${showBytes(cache.quotaBytes)}`;
  process.stdout.write(`${cache.taskCount} files, ${showBytes(cache.usedBytes)}, ${quota}\n`);
  return 0;
}

/** Does something to each file that was named. @returns 0, or the exit code of the first failure */
async function each(call: SubcommandCall<Settings>, act: (api: SupernodeApi, task: CachedTask) => Promise<Outcome>): Promise<number> {
  const { json, all } = call.command.opts<{ json?: true; all?: true }>();
  const api = apiOf(call);
  const { tasks } = await fetchAll(api);
  const named = all === true ? tasks : call.command.args.map((word) => find(tasks, word));
  if (named.length === 0 && all !== true) throw new AppError("USAGE", "name the files by their ids (supernode cache ls shows them), or say --all");
  const outcomes: Outcome[] = [];
  for (const task of named) {
    // oxlint-disable-next-line no-await-in-loop -- one after the other: a verification is work for the disk
    outcomes.push(await act(api, task).catch((thrown: unknown) => failed(task.taskId, thrown)));
  }
  if (json === true) {
    const shown = outcomes.map(({ taskId, error, facts }) => ({
      taskId,
      ...facts,
      ...(error === undefined ? { ok: true } : { ok: false, error: { code: error.code, message: error.message } }),
    }));
    process.stdout.write(`${JSON.stringify(shown, undefined, 2)}\n`);
  } else {
    for (const { taskId, said } of outcomes) process.stdout.write(`${taskId.slice(0, 12)} ${said}\n`);
  }
  return outcomes.find(({ error }) => error !== undefined)?.error?.exitCode ?? 0;
}

function failed(taskId: TaskId, thrown: unknown): Outcome {
  const error = toAppError(thrown);
  // Then the next would fail alike.
  if (error.code === "SUPERNODE_UNREACHABLE" || error.code === "TOKEN_REFUSED") throw error;
  return { taskId, error, said: `[${error.code}] ${error.message}` };
}

function find(tasks: readonly CachedTask[], word: string): CachedTask {
  const found = tasks.filter(({ taskId }) => taskId.startsWith(word.toLowerCase()));
  if (found.length === 1) return found[0] as CachedTask;
  if (found.length === 0) throw new AppError("TASK_UNKNOWN", `no cached file has an id that starts with ${word}; supernode cache ls shows them`);
  throw new AppError("USAGE", `${found.length} cached files have an id that starts with ${word}: write more of it`);
}

/** All pages. */
async function fetchAll(api: SupernodeApi): Promise<z.infer<typeof cacheSchema>> {
  const tasks: CachedTask[] = [];
  for (let after = ""; ; ) {
    // oxlint-disable-next-line no-await-in-loop -- page after page
    const page = parsed(cacheSchema, await api.call("GET", `/v1/cache?limit=${PAGE_COUNT}&after=${after}`));
    tasks.push(...page.tasks);
    after = page.tasks.at(-1)?.taskId ?? "";
    if (page.tasks.length < PAGE_COUNT) return { ...page, tasks };
  }
}

function apiOf({ config, command }: SubcommandCall<Settings>): SupernodeApi {
  const { supernode } = command.opts<{ supernode?: string }>();
  const given = supernode === undefined ? config.values.listen : parseListenAddress(supernode);
  if (given === undefined) throw new AppError("USAGE", `--supernode ${supernode}: not HOST:PORT`);
  // A supernode that listens on all addresses is asked on this machine.
  const host = ["0.0.0.0", "::"].includes(given.host) ? "127.0.0.1" : given.host;
  const token = supernodeToken(config);
  const secret = token.kind === "given" ? token.token : token.kind === "file" ? readToken(token.file) : undefined;
  const tls = siteTls(tlsConfig(config), secret);
  return new SupernodeApi({ host, port: given.port }, secret, tls);
}

function parsed<T>(schema: z.ZodType<T>, value: unknown): T {
  const { success, data } = schema.safeParse(value);
  if (!success) throw new AppError("PROTOCOL_VIOLATION", "the supernode's answer has another form; are both of one version?");
  return data;
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = head.map((title, at) => Math.max(title.length, ...rows.map((row) => row[at]?.length ?? 0)));
  const lineOf = (row: readonly string[]): string => row.map((cell, at) => (at === row.length - 1 ? cell : cell.padEnd(widths[at] ?? 0))).join("  ");
  return [head, ...rows].map((row) => `${lineOf(row)}\n`).join("");
}

const PAGE_COUNT = 10_000;
