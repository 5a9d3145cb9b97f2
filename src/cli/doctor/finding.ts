/** What the doctor found out about one link of the chain. */
export interface Finding {
  /** The link's name: stable, for scripts. */
  readonly link: string;
  /** `skipped`: could not be tried, because of an earlier one or of what is not there. */
  readonly status: "ok" | "broken" | "skipped";
  /** What is, and of what is broken also what to do. */
  readonly message: string;
}

export function ok(link: string, message: string): Finding {
  return { link, status: "ok", message };
}

/** @param advice what to do, as a sentence's second half */
export function broken(link: string, message: string, advice: string): Finding {
  return { link, status: "broken", message: `${message}; ${advice}` };
}

export function skipped(link: string, message: string): Finding {
  return { link, status: "skipped", message };
}

export function isFine(finding: Finding): boolean {
  return finding.status === "ok";
}
