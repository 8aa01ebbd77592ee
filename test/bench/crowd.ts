/** Device IDs of the benchmarks, by number. */
export const deviceId = (at: number): string => `urn:dev:bench:${at}`;

/**
 * The loopback address of a device, by number: 250 devices in a /24. Devices at one address would share its admission, as those
 * behind an address translator do; a storm of them is slower by design.
 */
export const deviceAddress = (at: number): string => `127.1.${Math.floor(at / 250)}.${(at % 250) + 1}`;

/** Secrets of the benchmarks. Gateway, head-end and devices derive the same ones. */
export const secrets = {
  gatewayClient: 'bench-gateway-client',
  gatewayServer: 'bench-gateway-server',
  factory: (id: string) => `factory-secret-of-${id}`,
  client: (id: string) => `client-secret-of-${id}`,
  server: (id: string) => `server-secret-of-${id}`,
};
