/**
 * What the operating system says about a disk, in our words: one place for the whole store.
 */
import { AppError, type ErrorCode } from "../../base/errors.ts";

/** A failure as it comes from the system, or from a worker thread: an errno name (`ENOSPC`) and a sentence. */
export interface DiskFailure {
  readonly code: string | undefined;
  readonly message: string;
}

/** @returns the errno name of a thrown system error, or undefined for anything else */
export function errnoOf(thrown: unknown): string | undefined {
  return thrown instanceof Error && "code" in thrown && typeof thrown.code === "string" ? thrown.code : undefined;
}

/** A thrown value in the form that crosses threads. */
export function diskFailure(thrown: unknown): DiskFailure {
  return { code: errnoOf(thrown), message: thrown instanceof Error ? thrown.message : String(thrown) };
}

/**
 * The error of a disk operation, for people: what failed, on which file, why, what to do.
 *
 * @param doing what was tried, as in "cannot <doing> <path>"
 * @returns DISK_FULL for ENOSPC and EDQUOT; DISK_FAILED for any other errno; INTERNAL when `thrown` is none of the
 *   system's; an {@link AppError} as it is
 */
export function diskError(thrown: unknown, doing: string, path: string): AppError {
  if (thrown instanceof AppError) return thrown;
  return diskFailureError(diskFailure(thrown), doing, path, thrown);
}

/** {@link diskError} for a failure that came from another thread. */
export function diskFailureError(failure: DiskFailure, doing: string, path: string, cause?: unknown): AppError {
  const errno = failure.code;
  const isSystem = errno !== undefined && /^E[A-Z0-9]+$/.test(errno);
  const code: ErrorCode = isSystem ? (FULL.has(errno) ? "DISK_FULL" : "DISK_FAILED") : "INTERNAL";
  const why = isSystem ? (REASONS[errno] ?? `the system says ${errno}; see the kernel's log`) : failure.message;
  return new AppError(code, `cannot ${doing} ${path}: ${why}`, {
    cause,
    details: isSystem ? { path, errno } : { path },
  });
}

const FULL: ReadonlySet<string> = new Set(["ENOSPC", "EDQUOT"]);

/** Why, and what to do about it. */
const REASONS: Readonly<Record<string, string>> = {
  ENOSPC: "no space is left on the device; free some, or lower the cache quota",
  EDQUOT: "the user's disk quota is used up; raise it, or lower the cache quota",
  EACCES: "permission denied; make the data directory writable for this user, or choose another",
  EPERM: "the operation is not permitted; make the data directory writable for this user, or choose another",
  EROFS: "the file system is mounted read-only; remount it writable (check the kernel's log first), or choose another data directory",
  EIO: "the device reports an input/output error; check the disk and the kernel's log",
  EMFILE: "this process has too many open files; raise its limit (LimitNOFILE, ulimit -n)",
  ENFILE: "the system has too many open files; raise fs.file-max",
  ENOTDIR: "a part of the path is a file, not a directory; choose another data directory",
  ENOENT: "it does not exist; was it removed while in use?",
  EFBIG: "the file system does not allow files of that size; put the data directory on another one",
};
