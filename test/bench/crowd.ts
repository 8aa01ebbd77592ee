/** Device IDs of the benchmarks, by number. */
export const deviceId = (at: number): string => `urn:dev:bench:${at}`;

/** Secrets of the benchmarks. Gateway, head-end and devices derive the same ones. */
export const secrets = {
  gatewayClient: 'bench-gateway-client',
  gatewayServer: 'bench-gateway-server',
  factory: (id: string) => `factory-secret-of-${id}`,
  client: (id: string) => `client-secret-of-${id}`,
  server: (id: string) => `server-secret-of-${id}`,
};
