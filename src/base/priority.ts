/** What a task is for, the most urgent first: somebody waits for it; it is wanted; it may be wanted later. */
export type Priority = "interactive" | "normal" | "preheat";

export const PRIORITIES: readonly Priority[] = ["interactive", "normal", "preheat"];
