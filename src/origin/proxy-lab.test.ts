/** A forward proxy that writes down what it is asked, and finds every name on this machine. No tests of its own. */
import { createServer, request as forward } from "node:http";
import { connect } from "node:net";
import type { AddressInfo } from "node:net";
import type { TestContext } from "node:test";

export interface LabProxy {
  /** With the user `me` and the password `pw`. */
  readonly url: string;
  /** `CONNECT host:port`, `GET http://…`, each with its Proxy-Authorization. */
  readonly asked: string[];
}

export async function serveProxy(t: TestContext, options: { readonly refuse?: number } = {}): Promise<LabProxy> {
  const asked: string[] = [];
  const proxy = createServer((request, response) => {
    asked.push(`${request.method} ${request.url} ${request.headers["proxy-authorization"]}`);
    if (options.refuse !== undefined) return void response.writeHead(options.refuse).end();
    const url = new URL(request.url ?? "");
    const { "proxy-authorization": _, ...headers } = request.headers;
    const path = `${url.pathname}${url.search}`;
    const onward = forward({ host: "127.0.0.1", port: url.port, path, method: request.method, headers }, (answer) => {
      response.writeHead(answer.statusCode ?? 502, answer.headers);
      answer.pipe(response);
    });
    onward.on("error", () => response.destroy());
    request.pipe(onward);
  });
  proxy.on("connect", (request, client) => {
    asked.push(`CONNECT ${request.url} ${request.headers["proxy-authorization"]}`);
    if (options.refuse !== undefined) return void client.end(`HTTP/1.1 ${options.refuse} No\r\n\r\n`);
    const upstream = connect(Number(request.url?.split(":").at(-1)), "127.0.0.1", () => {
      client.write("HTTP/1.1 200 OK\r\n\r\n");
      upstream.pipe(client).pipe(upstream);
    });
    for (const socket of [client, upstream]) socket.on("error", () => upstream.destroy() && client.destroy());
    t.after(() => upstream.destroy());
  });
  await new Promise<void>((resolve) => proxy.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    proxy.closeAllConnections();
    proxy.close();
  });
  return { url: `http://me:pw@127.0.0.1:${(proxy.address() as AddressInfo).port}/`, asked };
}
