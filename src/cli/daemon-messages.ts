/** What dfdaemon says on a content's stream, checked by hand: a schema library takes longer to load than most files to come. */
import { type Bound, BOUNDS } from "../base/bounds.ts";
import { AppError, type ErrorCode, isErrorCode } from "../base/errors.ts";
import type { Content, ContentInfo } from "../peer/content.ts";
import type { Explanation } from "../protocol/explanation.ts";
import { isPeerId, isTaskId } from "../protocol/ids.ts";
import type { HeldFileName } from "./held-file.ts";

export type Sources = ReturnType<Content["sources"]>;

export const STRANGE = "dfdaemon answered in no form we know; are dfget and dfdaemon of one version?";

type Fields = Readonly<Record<string, unknown>>;
type Detail = string | number | boolean;

/** @throws AppError PROTOCOL_VIOLATION, as all of these do */
export function readInfo(json: unknown): ContentInfo {
  const info = fieldsOf(json);
  const taskId = optional(info, "taskId", "string");
  return {
    taskId: taskId !== undefined && isTaskId(taskId) ? taskId : undefined,
    lengthBytes: optional(info, "lengthBytes", "number"),
    contentType: optional(info, "contentType", "string"),
    digest: optional(info, "digest", "string"),
    headers: everyField(info["headers"], (value): value is string => typeof value === "string"),
  };
}

/** Of an `info`: the file in which the content lies, where it lies in one. */
export function readFileName(json: unknown): HeldFileName | undefined {
  const { file } = fieldsOf(json);
  if (file === undefined) return undefined;
  const { path, device, inode } = everyField(file, (value): value is string => typeof value === "string");
  if (path === undefined || device === undefined || inode === undefined) throw strange();
  return { path, device, inode };
}

/** Of a `status`, or of an `end` that has them. */
export function readSources(json: unknown): Sources | undefined {
  const { sources } = fieldsOf(json);
  if (sources === undefined) return undefined;
  const { seedBytes, peerBytes, originBytes, cacheBytes } = everyField(sources, (value): value is number => typeof value === "number");
  if (seedBytes === undefined || peerBytes === undefined || originBytes === undefined || cacheBytes === undefined) throw strange();
  return { seedBytes, peerBytes, originBytes, cacheBytes };
}

/** Of an `end`; undefined when all is well. */
export function readFailure(json: unknown): AppError | undefined {
  const { error } = fieldsOf(json);
  if (error === undefined) return undefined;
  const { code, message, details = {} } = fieldsOf(error);
  if (typeof code !== "string" || typeof message !== "string") throw strange();
  const known: ErrorCode = isErrorCode(code) ? code : "INTERNAL";
  return new AppError(known, message, { details: everyField(details, isDetail) });
}

/** Of an `end` that has one; undefined for another version's form: nothing depends on it. */
export function readExplanation(json: unknown): Explanation | undefined {
  try {
    return explanationOf(fieldsOf(json));
  } catch {
    return undefined;
  }
}

/** As `explanationSchema` of protocol/explanation.ts, but for how many neighbours there may be; the test beside this file holds it to that. */
function explanationOf(fields: Fields): Explanation {
  const { boundBy, firstByteMs, neighbours } = fields;
  if (boundBy !== null && !isBound(boundBy)) throw strange();
  if (!Array.isArray(neighbours)) throw strange();
  const [spentMs, bytes, pieces] = [fieldsOf(fields["spentMs"]), fieldsOf(fields["bytes"]), fieldsOf(fields["pieces"])];
  return {
    boundBy,
    tookMs: amount(fields, "tookMs"),
    openedMs: amount(fields, "openedMs"),
    firstByteMs: firstByteMs === null ? null : amount(fields, "firstByteMs"),
    spentMs: amounts(spentMs, BOUNDS),
    bytes: counts(bytes, ["seedBytes", "peerBytes", "originBytes", "cacheBytes"]),
    neighbours: neighbours.map((json: unknown) => {
      const neighbour = fieldsOf(json);
      const { peerId, seed } = neighbour;
      if (typeof peerId !== "string" || !isPeerId(peerId) || typeof seed !== "boolean") throw strange();
      return { peerId, seed, bytes: count(neighbour, "bytes") };
    }),
    pieces: counts(pieces, ["offered", "declined", "late", "doubled", "rejected"]),
    wastedBytes: count(fields, "wastedBytes"),
  };
}

function isBound(value: unknown): value is Bound {
  return (BOUNDS as readonly unknown[]).includes(value);
}

function amounts<K extends string>(fields: Fields, names: readonly K[]): Record<K, number> {
  return Object.fromEntries(names.map((name) => [name, amount(fields, name)])) as Record<K, number>;
}

function counts<K extends string>(fields: Fields, names: readonly K[]): Record<K, number> {
  return Object.fromEntries(names.map((name) => [name, count(fields, name)])) as Record<K, number>;
}

function amount(fields: Fields, name: string): number {
  const value = fields[name];
  if (typeof value !== "number" || !(value >= 0)) throw strange();
  return value;
}

function count(fields: Fields, name: string): number {
  const value = amount(fields, name);
  if (!Number.isSafeInteger(value)) throw strange();
  return value;
}

function fieldsOf(json: unknown): Fields {
  if (typeof json !== "object" || json === null || Array.isArray(json)) throw strange();
  return json as Fields;
}

function optional(fields: Fields, name: string, type: "string"): string | undefined;
function optional(fields: Fields, name: string, type: "number"): number | undefined;
function optional(fields: Fields, name: string, type: string): unknown {
  const value = fields[name];
  if (value !== undefined && typeof value !== type) throw strange();
  return value;
}

function everyField<T>(json: unknown, isGood: (value: unknown) => value is T): Readonly<Record<string, T>> {
  const fields = fieldsOf(json);
  if (!Object.values(fields).every(isGood)) throw strange();
  return fields as Readonly<Record<string, T>>;
}

function isDetail(value: unknown): value is Detail {
  return typeof value === "string" || typeof value === "number" || typeof value === "boolean";
}

function strange(): AppError {
  return new AppError("PROTOCOL_VIOLATION", STRANGE);
}
