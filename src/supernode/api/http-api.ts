/** The supernode's port: health, metrics, REST with its OpenAPI document, pieces; upgrades go to links and control. */
import type { IncomingMessage, ServerResponse } from "node:http";
import { Server as HttpsServer } from "node:https";
import type { Duplex } from "node:stream";
import swagger from "@fastify/swagger";
import fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from "fastify";
import type { Logger } from "pino";
import { AppError, toAppError } from "../../base/errors.ts";
import { type HostLimits, limitsChangeSchema } from "../../peer/host-limits.ts";
import { secretsEqual } from "../../peer/membership/credentials.ts";
import type { SiteTls } from "../../peer/membership/site-tls.ts";
import { refuse } from "../../peer/refuse-upgrade.ts";
import * as schemas from "./api-schemas.ts";
import { type ApiViews, isTrusted, type Page } from "./api-views.ts";
import { addSelfTestRegistry } from "./self-test-registry.ts";
import type { SupernodeMetrics } from "../metrics.ts";
import type { OriginBudgets } from "../origin-budgets.ts";

export interface HttpApiDeps {
  readonly views: ApiViews;
  readonly metrics: SupernodeMetrics;
  readonly limits: Pick<HostLimits, "change" | "view">;
  readonly budgets: Pick<OriginBudgets, "view">;
  /** Undefined: everybody may use the API. */
  readonly token: string | undefined;
  /** Undefined: in the clear. */
  readonly tls?: SiteTls | undefined;
  readonly version: string;
  readonly isReady: () => boolean;
  /** Serves pieces and content. @returns false when the request is not for it */
  readonly handlePieces: (request: IncomingMessage, response: ServerResponse) => boolean;
  /** Offered in order until one takes it. */
  readonly upgrades: readonly ((request: IncomingMessage, socket: Duplex, head: Buffer) => boolean)[];
  readonly log: Pick<Logger, "error">;
}

/** Makes the app; the caller listens and closes. Errors are `{code, message}` with the table's status. */
export async function createHttpApi(deps: HttpApiDeps): Promise<FastifyInstance> {
  const { version, log, tls } = deps;
  // Fastify's types tell an HTTPS server from an HTTP one by this; to all that is done with it here they are the same.
  const secure: object = tls === undefined ? {} : { https: tls.serverOptions() };
  const app = fastify({
    ...secure,
    logger: false,
    forceCloseConnections: true,
    bodyLimit: 64 * 1024,
    // From the first byte of a request to its last; answers may take as long as they take.
    requestTimeout: 30_000,
    routerOptions: { maxParamLength: 200 },
  });
  app.setErrorHandler((thrown, _request, reply) => sendError(reply, fromFastify(thrown), log));
  app.setNotFoundHandler((request, reply) =>
    reply.status(404).send({ code: "USAGE", message: `no such route: ${request.method} ${request.url.split("?", 1)[0]}; see /openapi.json` }),
  );
  await app.register(swagger, {
    openapi: {
      openapi: "3.1.0",
      info: { title: "Dragonfly supernode", version, description: "Tasks, peers, links and the cache of one supernode." },
      components: {
        securitySchemes: { joinToken: { type: "http", scheme: "bearer", description: "The join token; not needed on loopback." } },
      },
      security: [{ joinToken: [] }],
    },
  });
  app.addHook("onRequest", async (request) => authorize(request, deps.token));
  addPublicRoutes(app, deps);
  addRestRoutes(app, deps);
  addCacheRoutes(app, deps);
  addLimitRoutes(app, deps);
  addPieceRoutes(app, deps);
  addSelfTestRegistry(app);
  if (app.server instanceof HttpsServer) tls?.serve(app.server);
  app.server.on("upgrade", (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    for (const take of deps.upgrades) if (take(request, socket, head)) return;
    refuse(socket, "HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
  });
  await app.ready();
  return app;
}

function addPublicRoutes(app: FastifyInstance, { metrics, isReady }: HttpApiDeps): void {
  const health = (description: string): object => ({
    description,
    tags: ["health"],
    security: [],
    response: { 200: schemas.healthSchema, 503: schemas.errorSchema },
  });
  app.get("/healthz", { schema: health("The process answers.") }, () => ({ status: "ok" }));
  app.get("/readyz", { schema: health("It takes peers.") }, () => {
    if (!isReady()) throw new AppError("SHUTTING_DOWN", "the supernode is starting or shutting down");
    return { status: "ready" };
  });
  const metricsSchema = { description: "Prometheus metrics.", tags: ["health"], security: [], produces: ["text/plain"], response: { 200: { type: "string" } } };
  app.get("/metrics", { schema: metricsSchema }, async (_request, reply) => {
    return await reply.type(metrics.registry.contentType).send(await metrics.registry.metrics());
  });
  app.get("/openapi.json", { schema: { hide: true } }, () => app.swagger());
}

function addRestRoutes(app: FastifyInstance, { views }: HttpApiDeps): void {
  const failures = { 401: schemas.errorSchema, 404: schemas.errorSchema };
  const list = (description: string, answer: object, querystring: object = schemas.pageQuery): object => ({
    description,
    tags: ["state"],
    querystring,
    response: { 200: answer, ...failures },
  });
  app.get("/v1/version", { schema: { description: "What runs here.", tags: ["state"], response: { 200: schemas.versionSchema, ...failures } } }, () => views.version());
  app.get<{ Querystring: Page }>("/v1/tasks", { schema: list("Tasks that peers take part in.", schemas.tasksSchema) }, (request) => views.tasks(request.query));
  app.get<{ Params: { id: string } }>(
    "/v1/tasks/:id",
    { schema: { description: "One task and its members.", tags: ["state"], params: schemas.taskIdParams, response: { 200: schemas.taskSchema, ...failures } } },
    (request) => views.task(request.params.id),
  );
  app.get<{ Querystring: Page }>("/v1/peers", { schema: list("Peers of the site.", schemas.peersSchema) }, (request) => views.peers(request.query));
  app.get<{ Querystring: Page }>("/v1/links", { schema: list("The mesh: who is neighbour of whom, per task.", schemas.linksSchema, schemas.limitQuery) }, (request) => views.links(request.query));
  app.get<{ Querystring: Page }>("/v1/cache", { schema: list("Files on the supernode's disk.", schemas.cacheSchema) }, (request) => views.cache(request.query));
}

function addCacheRoutes(app: FastifyInstance, { views }: HttpApiDeps): void {
  const done = { type: "null", description: "done" };
  const described = (description: string, answers: object): object => ({
    description,
    tags: ["cache"],
    params: schemas.taskIdParams,
    response: { ...answers, 401: schemas.errorSchema, 404: schemas.errorSchema, 507: schemas.errorSchema },
  });
  app.delete<{ Params: { id: string } }>(
    "/v1/cache/:id",
    { schema: described("Removes a file from the supernode's disk, unless somebody uses it or it is pinned.", { 204: done, 409: schemas.errorSchema }) },
    async ({ params: { id } }, reply) => {
      const why = await views.removeFromCache(id);
      if (why === undefined) return await reply.status(204).send();
      return await reply.status(409).send({ code: "USAGE", message: `task ${id} is not removed: ${why}` });
    },
  );
  app.put<{ Params: { id: string } }>(
    "/v1/cache/:id/pin",
    { schema: described("Keeps a file on the supernode's disk whatever room is needed, over restarts too.", { 204: done }) },
    async ({ params: { id } }, reply) => {
      await views.pinInCache(id, true);
      return await reply.status(204).send();
    },
  );
  app.delete<{ Params: { id: string } }>("/v1/cache/:id/pin", { schema: described("Lets a pinned file go when room is needed.", { 204: done }) }, async ({ params: { id } }, reply) => {
    await views.pinInCache(id, false);
    return await reply.status(204).send();
  });
  app.post<{ Params: { id: string } }>(
    "/v1/cache/:id/verify",
    { schema: described("Reads a file back from the supernode's disk and drops what is damaged.", { 200: schemas.verifiedSchema }) },
    async ({ params: { id } }) => await views.verifyInCache(id),
  );
}

function addLimitRoutes(app: FastifyInstance, { limits, budgets }: HttpApiDeps): void {
  const schema = (description: string): object => ({
    description,
    tags: ["state"],
    response: { 200: schemas.limitsSchema, 400: schemas.errorSchema, 401: schemas.errorSchema },
  });
  app.get("/v1/limits", { schema: schema("The supernode's limits: set and reached.") }, () => limits.view());
  app.get(
    "/v1/origins",
    { schema: { description: "Origins that have a budget, with what the site asks and reads of them.", tags: ["state"], response: { 200: schemas.originsSchema, 401: schemas.errorSchema } } },
    () => ({ origins: budgets.view() }),
  );
  app.put(
    "/v1/limits",
    {
      schema: { ...schema("Changes limits at once, until the next reload; null = none, absent = as it is."), body: schemas.limitsChange },
      // Checked below: the framework would make null of a 0, and drop what it does not know.
      validatorCompiler: () => () => true,
    },
    (request) => {
      const change = limitsChangeSchema.safeParse(request.body);
      if (!change.success) throw new AppError("USAGE", `limits are bytes per second larger than 0, or null: ${change.error.issues[0]?.message ?? ""}`);
      limits.change(change.data);
      return limits.view();
    },
  );
}

function addPieceRoutes(app: FastifyInstance, { handlePieces }: HttpApiDeps): void {
  // Bodies of pieces are read by who takes them, and bounded there.
  app.addContentTypeParser("application/octet-stream", (_request, _payload, done) => done(null));
  const serve = async (request: FastifyRequest, reply: FastifyReply): Promise<void> => {
    reply.hijack();
    if (handlePieces(request.raw, reply.raw)) return;
    reply.raw.writeHead(404, { "content-type": "application/json; charset=utf-8" });
    reply.raw.end(JSON.stringify({ code: "PIECE_UNKNOWN", message: "there is no such piece" }));
  };
  const params = { ...schemas.taskIdParams, properties: { id: { type: "string" } } };
  const described = (description: string, properties: object): object => ({
    description: `${description} Needs a task's ticket as bearer token and the peer's id in X-Dragonfly-Peer.`,
    tags: ["pieces"],
    params: { ...params, properties: { ...params.properties, ...properties } },
  });
  app.get("/v1/tasks/:id/pieces/:n", { schema: described("One piece.", { n: { type: "string" } }) }, serve);
  app.put(
    "/v1/tasks/:id/leases/:lease/pieces/:n",
    { schema: described("Brings a piece that the peer was lent to read from the origin.", { lease: { type: "string" }, n: { type: "string" } }) },
    serve,
  );
  app.get("/v1/tasks/:id/content", { schema: described("Content by Range, as far as it is here.", {}) }, serve);
}

/** The REST API needs the join token, except from this machine; pieces have tickets of their own. */
function authorize(request: FastifyRequest, token: string | undefined): void {
  const { url } = request.routeOptions;
  const isOpen = url === undefined || !url.startsWith("/v1/") || url.startsWith("/v1/tasks/:id/");
  if (token === undefined || isOpen || isTrusted(request.socket.remoteAddress)) return;
  const given = /^Bearer +(\S+)$/i.exec(request.headers.authorization ?? "")?.[1];
  if (given === undefined || !secretsEqual(given, token)) {
    throw new AppError("TOKEN_REFUSED", "the API needs the join token: Authorization: Bearer <token>");
  }
}

function fromFastify(thrown: unknown): AppError {
  const status = (thrown as { statusCode?: unknown }).statusCode;
  const isAsked = !(thrown instanceof AppError) && typeof status === "number" && status >= 400 && status < 500;
  return toAppError(thrown, isAsked ? "USAGE" : "INTERNAL");
}

function sendError(reply: FastifyReply, error: AppError, log: HttpApiDeps["log"]): FastifyReply {
  if (error.code === "INTERNAL") log.error({ err: error }, "a request failed");
  if (error.code === "TOKEN_REFUSED") void reply.header("www-authenticate", 'Bearer realm="dragonfly"');
  return reply.status(error.httpStatus).send({ code: error.code, message: error.code === "INTERNAL" ? "internal error; see the log" : error.message });
}
