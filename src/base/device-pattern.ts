/** Whether a DevId fits a pattern: a DevId, or the beginning of DevIds followed by `*`. */
export const matchesDevice = (pattern: string, device: string): boolean =>
  pattern.endsWith('*') ? device.startsWith(pattern.slice(0, -1)) : device === pattern;
