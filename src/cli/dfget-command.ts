/** The dfget command: one file, the best way, exit code 0 only when it is all there. */
import { AppError, toAppError, type ErrorCode } from "../base/errors.ts";
import { redactUrl } from "../origin/origin-url.ts";
import type { ContentInfo } from "../peer/content.ts";
import { CommandLine } from "./command-line.ts";
import { printConfig, resolveConfig } from "./config.ts";
import { DFGET } from "./config-schema.ts";
import { addDfgetFlags, aliasedSettings, dfgetJob, ignoredFlags, type DfgetJob } from "./dfget-flags.ts";
import type { DfgetOutput } from "./dfget-output.ts";
import { waysTo } from "./dfget-ways.ts";
import { Transfer } from "./dfget-transfer.ts";
import { explanationText } from "./explanation-text.ts";
import { DigestCheck } from "./digest-check.ts";
import { Interruption } from "./interruption.ts";
import { thisMachine } from "./machine.ts";
import { dfgetConfig, type DfgetConfig } from "./program-config.ts";
import { openFileOutput } from "./open-file-output.ts";
import { outputError } from "./output-errors.ts";
import { chooseProgress, ProgressReporter } from "./progress-reporter.ts";
import { packageVersion } from "./package-version.ts";
import { errorLines, outliveOutputs } from "./report-error.ts";
import { isSpecialFile, isStdout, specialFileOutput, stdoutOutput } from "./stream-output.ts";
import { showBytes } from "./units.ts";

/** After these nothing that came is worth keeping. */
const WORTHLESS_AFTER: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  "DIGEST_MISMATCH",
  "ORIGIN_CHANGED",
  "ORIGIN_LENGTH_WRONG",
  "CACHE_CORRUPT",
]);

/** @returns the exit code. Never rejects */
export async function runDfget(argv: readonly string[]): Promise<number> {
  outliveOutputs();
  try {
    const version = packageVersion();
    const commandLine = new CommandLine(DFGET, version, { "--timeout": "-T" });
    const { command } = commandLine;
    addDfgetFlags(command);
    const parsed = commandLine.parse(argv);
    if (parsed.kind === "text") return await tell(parsed.text);
    const machine = thisMachine();
    const flags = { ...aliasedSettings(command), ...parsed.flags };
    const resolved = resolveConfig(DFGET, { flags, file: parsed.configFile }, machine);
    if (parsed.printConfig) return await tell(printConfig(DFGET, resolved));
    const named = dfgetJob(command);
    const job = isStdout(named.output) ? { ...named, output: "-" } : named;
    const config = dfgetConfig(resolved, version, machine);
    if (job.verbosity !== "quiet") for (const line of ignoredFlags(command)) await say(process.stderr, `${line}\n`);
    return await download(job, config);
  } catch (thrown) {
    return await report(toAppError(thrown));
  }
}

/** @returns the exit code */
async function download(job: DfgetJob, config: DfgetConfig): Promise<number> {
  const interruption = new Interruption(config.timeoutMs);
  let output: DfgetOutput;
  try {
    output = await openOutput(job, interruption.signal);
  } catch (thrown) {
    interruption.close();
    const exitCode = await report(toAppError(thrown));
    return interruption.exitCode ?? exitCode;
  }
  const name = job.output === "-" ? "stdout" : (job.output.split("/").at(-1) ?? job.output);
  const warn = (line: string): void => (job.verbosity === "quiet" ? undefined : progress.say(line));
  const transfer: Transfer = new Transfer({
    source: job.source,
    backToSource: config.backToSource,
    output,
    ways: waysTo(job, config, {
      detail: (line) => (job.verbosity === "verbose" ? progress.say(line) : undefined),
      warn,
    }),
    limitBytesPerSecond: config.limitBytesPerSecond,
    signal: interruption.signal,
    onNextWay: (error) => warn(`[${error.code}] ${error.message}; going another way`),
  });
  const progress = new ProgressReporter({
    name,
    ...chooseProgress(config.progress, job.verbosity === "quiet", { isTty: process.stderr.isTTY, env: process.env }),
    env: process.env,
    read: () => ({
      doneBytes: transfer.doneBytes,
      resumedBytes: transfer.resumedBytes,
      totalBytes: transfer.info?.lengthBytes,
      sources: transfer.sources,
    }),
  });
  const facts = (): object => ({
    url: redactUrl(job.source.url),
    output: job.output,
    bytes: transfer.doneBytes,
    resumedBytes: transfer.resumedBytes,
    seconds: Math.round(progress.figures().elapsedMs) / 1000,
    via: transfer.via ?? null,
    taskId: transfer.info?.taskId ?? null,
    sources: transfer.sources,
    explanation: transfer.explanation ?? null,
  });
  const explain = async (): Promise<void> => {
    const { explanation } = transfer;
    if (job.explain && explanation !== undefined) await say(process.stderr, explanationText(explanation));
  };
  const json = async (value: object): Promise<number> => {
    if (!job.json) return 0;
    const text = `${JSON.stringify(value)}\n`;
    if (job.output !== "-") return await tell(text);
    await say(process.stderr, text);
    return 0;
  };
  try {
    const digests = await transfer.run();
    progress.finish();
    await explain();
    const staleSeconds = staleSecondsOf(transfer.info);
    if (staleSeconds !== undefined) {
      warn(`the origin could not be asked whether the file has changed: this is what it had ${staleSeconds} s ago`);
    }
    return await json({ ok: true, ...facts(), digests, ...(staleSeconds === undefined ? {} : { staleSeconds }) });
  } catch (thrown) {
    progress.stop();
    const error = toAppError(thrown);
    const kept = await output.abandon(!WORTHLESS_AFTER.has(error.code));
    const exitCode = interruption.exitCode ?? error.exitCode;
    await report(error);
    await explain();
    if (kept > 0 && job.verbosity !== "quiet")
      await say(process.stderr, `${job.output}.part keeps ${showBytes(kept)}; go on with -c\n`);
    await json({
      ok: false,
      ...facts(),
      exitCode,
      error: { code: error.code, message: error.message, details: error.details },
    });
    return exitCode;
  } finally {
    interruption.close();
  }
}

/** Only a supernode that could not ask sends an age: what origins say of theirs is not relayed. */
function staleSecondsOf(info: ContentInfo | undefined): number | undefined {
  const age = info?.headers["age"];
  return age === undefined ? undefined : Number(age);
}

async function openOutput(job: DfgetJob, signal: AbortSignal): Promise<DfgetOutput> {
  const check = new DigestCheck(job.digests);
  if (job.output === "-") {
    if (job.resume) throw new AppError("USAGE", "-c needs a file to continue, and stdout is none");
    return stdoutOutput(check);
  }
  if (isSpecialFile(job.output)) return specialFileOutput(job.output, check, signal);
  return openFileOutput({ path: job.output, overwrite: job.overwrite, resume: job.resume, check });
}

async function report(error: AppError): Promise<number> {
  await say(process.stderr, errorLines(error));
  return error.exitCode;
}

/** What was asked for on stdout. @returns the exit code */
async function tell(text: string): Promise<number> {
  const error = await say(process.stdout, text);
  return error === undefined ? 0 : await report(outputError(error, "stdout", "OUTPUT_UNWRITABLE", false));
}

/** Writes, and waits until it is out: the process may end right after. @returns why it is not */
function say(stream: NodeJS.WriteStream, text: string): Promise<Error | undefined> {
  return new Promise((resolve) => stream.write(text, (error) => resolve(error ?? undefined)));
}
