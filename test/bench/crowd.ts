/** Names and secrets of the devices of a benchmark. */
export const deviceId = (at: number): string => `urn:dev:bench:${at}`;

export const secrets = {
  gatewayClient: 'bench-gateway-client',
  gatewayServer: 'bench-gateway-server',
  factory: (id: string) => `factory-secret-of-${id}`,
  client: (id: string) => `client-secret-of-${id}`,
  server: (id: string) => `server-secret-of-${id}`,
};
