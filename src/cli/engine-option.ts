import { Option } from "commander";
import { AppError } from "../base/errors.ts";
import { ENGINE_NAMES, type EngineName } from "../engines/engine.ts";

/** `--engine NAME`, repeatable; its value is a list of names. @throws AppError USAGE while parsing */
export function engineOption(description: string): Option {
  return new Option("--engine <name>", description).argParser((text, previous: readonly EngineName[] | undefined) => {
    const name = ENGINE_NAMES.find((known) => known === text);
    if (name !== undefined) return [...(previous ?? []), name];
    throw new AppError("USAGE", `--engine: "${text}" is none of ${ENGINE_NAMES.join(", ")}`);
  });
}
