import { Agent as PlainAgent } from 'node:http';
import { Agent as SecureAgent } from 'node:https';

/** Milliseconds in which a proxy must have answered. */
const patience = 30_000;

/**
 * Makes the connections to a server: through the HTTP proxy that the environment names (HTTPS_PROXY, HTTP_PROXY, NO_PROXY, also in
 * small letters), or else directly. For `https:` and `wss:` the proxy only passes octets on.
 */
export const agentFor = (url: string): PlainAgent =>
  new (/^(https|wss):/.test(url) ? SecureAgent : PlainAgent)({ proxyEnv: process.env, timeout: patience });
