/** Many pulls at once by one process: `node puller.ts REPOSITORY_URL MANIFEST_DIGEST COUNT`; three layers of each beside each other. */
import { Agent, get, type IncomingMessage } from "node:http";

const LAYERS_AT_A_TIME = 3;

const [url = "", digest = "", count = "1"] = process.argv.slice(2);

async function read(path: string, agent: Agent): Promise<Buffer[]> {
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    get(`${url}/${path}`, { agent }, resolve).once("error", reject);
  });
  const keeps = path.startsWith("manifests/");
  const chunks: Buffer[] = [];
  let received = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    received += chunk.length;
    if (keeps) chunks.push(chunk);
  }
  if (response.statusCode !== 200 || received !== Number(response.headers["content-length"])) {
    throw new Error(`${path}: status ${response.statusCode}, ${received} bytes`);
  }
  return chunks;
}

async function pull(): Promise<void> {
  const agent = new Agent({ keepAlive: true });
  const manifest = JSON.parse(Buffer.concat(await read(`manifests/${digest}`, agent)).toString()) as {
    config: { digest: string };
    layers: { digest: string }[];
  };
  const blobs = [manifest.config, ...manifest.layers].map((blob) => blob.digest);
  const worker = async (): Promise<void> => {
    for (let blob = blobs.shift(); blob !== undefined; blob = blobs.shift()) await read(`blobs/${blob}`, agent);
  };
  await Promise.all(Array.from({ length: LAYERS_AT_A_TIME }, worker));
  agent.destroy();
}

await Promise.all(Array.from({ length: Number(count) }, pull));
