import { STATUS_CODES, type IncomingMessage } from "node:http";
import type { Duplex } from "node:stream";
import { hangUp, refuse } from "../../peer/refuse-upgrade.ts";
import { failureOf, type ForwardDeps, type Forwarded } from "./forward.ts";
import { endToEnd, pairs } from "./message-headers.ts";
import type { ProxyRecord } from "./proxy-record.ts";
import type { Tunnels } from "./tunnels.ts";

/**
 * False for an `Upgrade` that is answered as if it were not there, as RFC 9110 §7.8 lets a server do: to HTTP/2, which who
 * offers it can do without (curl and Java offer it with every request); and behind a body, which would have to be told
 * from what the other protocol says after it.
 */
export function isForUpgrade({ headers }: IncomingMessage): boolean {
  const hasBody = headers["transfer-encoding"] !== undefined || Number(headers["content-length"] ?? 0) > 0;
  return !hasBody && headers.upgrade?.trim().toLowerCase() !== "h2c";
}

/**
 * Passes on a request to speak another protocol (WebSocket and the like), and then the bytes of both sides. A server
 * that does not want to is heard out, and its answer ends the connection. Never rejects.
 *
 * @param client owned from here on
 */
export async function forwardUpgrade(
  deps: ForwardDeps & { readonly tunnels: Tunnels },
  request: IncomingMessage,
  client: Duplex,
  head: Buffer,
  { target, path, host }: Forwarded,
  record: ProxyRecord,
): Promise<void> {
  const { upstreams, pseudonym, tunnels } = deps;
  const headers = endToEnd(request.rawHeaders, { pseudonym, replaced: host === undefined ? [] : ["host"] });
  if (host !== undefined) headers.unshift("Host", host);
  headers.push("Connection", "Upgrade", "Upgrade", request.headers.upgrade ?? "");
  const upstream = upstreams.request(target, request.method ?? "GET", path, headers);
  const { promise, resolve } = Promise.withResolvers<void>();
  client.on("error", () => client.destroy());
  client.once("close", () => upstream.destroy());
  const heed = heedLeaving(client);
  const onSilence = (): void => void upstream.destroy(new Error("nothing came for ten minutes"));
  upstream.once("timeout", onSilence);
  upstream.on("error", (thrown) => {
    if (record.status === 0 && !client.destroyed) {
      const error = failureOf(thrown, target);
      record.error = error;
      refuseSocket(client, error.httpStatus, error.message, record);
    } else client.destroy();
    resolve();
  });
  upstream.once("upgrade", (answer, server, serverHead) => {
    record.status = 101;
    heed.end();
    // How long the two may be silent then is the tunnel's affair.
    upstream.off("timeout", onSilence);
    client.write(headOf(answer, ["Connection", "Upgrade", "Upgrade", answer.headers.upgrade ?? ""], pseudonym), "latin1");
    if (serverHead.length > 0) server.unshift(serverHead);
    if (head.length > 0) client.unshift(head);
    void tunnels.join(client, server, record).then(resolve);
  });
  upstream.once("response", (answer) => {
    record.status = answer.statusCode ?? 502;
    heed.end();
    client.write(headOf(answer, ["Connection", "close"], pseudonym), "latin1");
    answer.on("data", (chunk: Buffer) => void (record.sentBytes += chunk.length));
    // Cut short is cut short on our side too.
    answer.once("error", () => client.destroy());
    answer.pipe(client);
    client.once("finish", () => hangUp(client));
    client.once("close", resolve);
  });
  upstream.end();
  await promise;
}

/** Destroys a client who goes before he is answered: while nobody reads from him, that he has ended his side shows nowhere. */
function heedLeaving(client: Duplex): { readonly end: () => void } {
  const onReadable = (): void => void (client.readableLength === 0 && client.read());
  const onEnd = (): void => void client.destroy();
  client.on("readable", onReadable).once("end", onEnd);
  return { end: () => void client.off("readable", onReadable).off("end", onEnd) };
}

/** Answers on a bare connection with a text of our own, and closes it. */
export function refuseSocket(
  client: Duplex,
  status: number,
  message: string,
  record: ProxyRecord | undefined,
  fields: readonly string[] = [],
): void {
  if (record !== undefined) record.status = status;
  const body = `dfdaemon: ${message}\n`;
  const lines = [...fields, "Content-Type: text/plain; charset=utf-8", `Content-Length: ${Buffer.byteLength(body)}`, "Connection: close"];
  refuse(client, `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? "Error"}\r\n${lines.join("\r\n")}\r\n\r\n${body}`);
}

function headOf(answer: IncomingMessage, more: readonly string[], pseudonym: string): string {
  const fields = [...pairs([...endToEnd(answer.rawHeaders, { pseudonym }), ...more])];
  const lines = fields.map(([name, value]) => `${name}: ${value}\r\n`);
  return `HTTP/1.1 ${answer.statusCode} ${answer.statusMessage}\r\n${lines.join("")}\r\n`;
}
