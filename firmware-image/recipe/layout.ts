/** Partitions of the disk, in order, MiB each. `data` comes at the first boot and takes what is left. */
export const partitions = [
  { name: 'state-1', size: 1 },
  { name: 'state-2', size: 1 },
  { name: 'config', size: 16 },
  { name: 'boot-a', size: 24 },
  { name: 'root-a', size: 96 },
  { name: 'boot-b', size: 24 },
  { name: 'root-b', size: 96 },
] as const;
export type PartitionName = (typeof partitions)[number]['name'];

export const mebibyte = 1024 * 1024;
/** Room before the partitions, for the table and for boot loaders that lie in the open, and behind them, MiB. */
const margin = 4;

/** Where a partition begins, in MiB. */
export function startOf(name: PartitionName): number {
  let at: number = margin;
  for (const one of partitions) {
    if (one.name === name) return at;
    at += one.size;
  }
  throw new Error(`no partition ${name}`);
}

export const sizeOf = (name: PartitionName): number => partitions.find((one) => one.name === name)!.size;

/** MiB of the disk as it is flashed. */
export const diskSize = partitions.reduce((sum, { size }) => sum + size, 2 * margin);
