/**
 * Libraries that most runs of dfget can do without, loaded when they are first needed. `dfget --version` of a built package took
 * 154 ms of CPU with them and 72 without (2026-11-28, a core of a virtual machine).
 */
import { createRequire } from "node:module";
import type { z } from "zod";

const require = createRequire(import.meta.url);

export type Zod = typeof z;

export function loadZod(): Zod {
  return (require("zod") as { readonly z: Zod }).z;
}

export function loadYaml(): typeof import("yaml") {
  return require("yaml") as typeof import("yaml");
}

/** A schema that is built when it is first asked. */
export function fromZod<T>(build: (zod: Zod) => z.ZodType<T>): Pick<z.ZodType<T>, "safeParse"> {
  let schema: z.ZodType<T> | undefined;
  return { safeParse: (input) => (schema ??= build(loadZod())).safeParse(input) };
}
