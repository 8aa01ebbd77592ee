import { createHash } from 'node:crypto';

/** Name of the node of a device, or of a group: any identifier fits, and who knows the identifier can compute it. */
export const hashedName = (deviceId: string): string =>
  createHash('sha256').update(deviceId).digest('hex').slice(0, 16);
