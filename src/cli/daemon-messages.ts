/** What dfdaemon says on a content's stream, checked by hand: a schema library takes longer to load than most files to come. */
import { type Bound, BOUNDS } from "../base/bounds.ts";
import { AppError, type ErrorCode, isErrorCode } from "../base/errors.ts";
import type { Content, ContentInfo } from "../peer/content.ts";
import type { Explanation } from "../protocol/explanation.ts";
import { isTaskId } from "../protocol/ids.ts";

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

/** Of a `status`, or of an `end` that has them. */
export function readSources(json: unknown): Sources | undefined {
  const { sources } = fieldsOf(json);
  if (sources === undefined) return undefined;
  const { seedBytes, peerBytes, originBytes, cacheBytes } = everyField(sources, (value): value is number => typeof value === "number");
  if (seedBytes === undefined || peerBytes === undefined || originBytes === undefined || cacheBytes === undefined) throw strange();
  return { seedBytes, peerBytes, originBytes, cacheBytes };
}

/** Of an `end`; undefined when there is none, or one of another version's form: nothing depends on it. */
export function readExplanation(json: unknown): Explanation | undefined {
  const { explanation } = fieldsOf(json);
  if (explanation === undefined) return undefined;
  try {
    const { boundBy, firstByteMs, spentMs, bytes, neighbours, pieces, ...rest } = fieldsOf(explanation);
    const times = [firstByteMs ?? 0, ...namesOf(rest, ["tookMs", "openedMs", "wastedBytes"]), ...namesOf(spentMs, BOUNDS)];
    const counts = [...namesOf(bytes, ["seedBytes", "peerBytes", "originBytes", "cacheBytes"]), ...namesOf(pieces, ["offered", "declined", "late", "doubled", "rejected"])];
    const isNeighbour = (one: unknown): boolean => {
      const neighbour = fieldsOf(one);
      return typeof neighbour["peerId"] === "string" && typeof neighbour["seed"] === "boolean" && isAmount(neighbour["bytes"]);
    };
    const isOurs =
      [...times, ...counts].every(isAmount) && Array.isArray(neighbours) && neighbours.every(isNeighbour) && (boundBy === null || BOUNDS.includes(boundBy as Bound));
    return isOurs ? (explanation as Explanation) : undefined;
  } catch {
    return undefined;
  }
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

function namesOf(json: unknown, names: readonly string[]): unknown[] {
  const fields = fieldsOf(json);
  return names.map((name) => fields[name]);
}

function isAmount(value: unknown): value is number {
  return typeof value === "number" && value >= 0;
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
