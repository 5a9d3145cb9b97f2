/** How a benchmark is told what to do. The comment at the head of its file is its usage. */
import { readFileSync } from "node:fs";
import { parseArgs, type ParseArgsOptionsConfig } from "node:util";

export type OptionValues<T extends ParseArgsOptionsConfig> = ReturnType<typeof parseArgs<{ readonly options: T }>>["values"];

/**
 * Reads the options that this process was given; to be called before anything is started or made. For `--help`, and for what
 * cannot be meant, it tells the usage and ends the process.
 *
 * @param program the file of the program
 * @param meaning what follows from the options; throws an Error for what cannot be meant
 */
export function readOptions<const T extends ParseArgsOptionsConfig, R = OptionValues<T>>(
  program: string,
  options: T,
  meaning: (values: OptionValues<T>) => R = (values) => values as R,
): R {
  try {
    const values = parseArgs({ options: { ...options, help: { type: "boolean" } } }).values as OptionValues<T> & { readonly help?: boolean };
    if (values.help !== true) return meaning(values);
  } catch (thrown) {
    process.stderr.write(`${(thrown as Error).message.replaceAll("\n", " ")}\n\n${usageOf(program)}`);
    process.exit(2);
  }
  process.stdout.write(usageOf(program));
  process.exit();
}

function usageOf(program: string): string {
  const [, comment = ""] = /^\/\*\*(.*?)\*\//s.exec(readFileSync(program, "utf8")) ?? [];
  return `${comment.replaceAll(/^ \* ?/gm, "").trim()}\n`;
}
