import { runCli } from './runner.ts';

await runCli(
  {
    demo: async () => (await import('./demo.ts')).demo,
    gateway: async () => (await import('./gateway.ts')).gateway,
    launch: async () => (await import('./launch.ts')).launch,
    update: async () => (await import('./update.ts')).update,
    provision: async () => (await import('./provision.ts')).provision,
    backup: async () => (await import('./backup.ts')).backup,
    restore: async () => (await import('./restore.ts')).restore,
    status: async () => (await import('./status.ts')).status,
    devices: async () => (await import('./devices.ts')).devices,
    reset: async () => (await import('./reset.ts')).reset,
    join: async () => (await import('./join.ts')).join,
    ddf: async () => (await import('./ddf.ts')).ddf,
    account: async () => (await import('./account.ts')).account,
    headend: async () => (await import('./headend.ts')).headend,
    device: async () => (await import('./device.ts')).device,
  },
  process.argv.slice(2),
);
