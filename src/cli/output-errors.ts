/** What goes wrong with dfget's output, and what to do about it. */
import { AppError, type ErrorCode } from "../base/errors.ts";

/** What a file system said, as our error. @param canGoOn whether -c has anything to go on with there */
export function outputError(thrown: unknown, path: string, fallback: ErrorCode, canGoOn = true): AppError {
  if (thrown instanceof AppError) return thrown;
  const { code, message } = thrown as NodeJS.ErrnoException;
  if (code === "ENOSPC" || code === "EDQUOT") {
    const what = code === "ENOSPC" ? "the disk is full" : "the disk quota is used up";
    return new AppError("DISK_FULL", `cannot write ${path}: ${what}; make room and ${canGoOn ? "go on with -c" : "start again"}`, { cause: thrown });
  }
  const advice = ADVICE[code ?? ""];
  return new AppError(
    advice === undefined ? fallback : "OUTPUT_UNWRITABLE",
    `cannot write ${path}: ${advice ?? message}`,
    { cause: thrown },
  );
}

const ADVICE: Readonly<Record<string, string>> = {
  ENOENT: "its folder does not exist; make it first",
  ENOTDIR: "a part of its path is a file, not a folder",
  EACCES: "no permission; choose another folder",
  EPERM: "not allowed; choose another folder",
  EROFS: "the file system is read-only; choose another folder",
  ENAMETOOLONG: "the name is too long; choose a shorter one with -O",
  ELOOP: "its .part file is a symbolic link; remove it",
  EISDIR: "its .part file is a directory; remove it",
  EFBIG: "the file is larger than the file system or a limit allows",
  EPIPE: "whoever read it has hung up",
};

export function takenAway(what: string, path: string): AppError {
  return new AppError("OUTPUT_UNWRITABLE", `${what} was taken away or replaced while it was being written; is another dfget writing ${path}?`);
}
