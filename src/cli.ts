import { runCli } from './cli/runner.ts';

await runCli(
  {
    demo: async () => (await import('./cli/demo.ts')).demo,
    gateway: async () => (await import('./cli/gateway.ts')).gateway,
    launch: async () => (await import('./cli/launch.ts')).launch,
    update: async () => (await import('./cli/update.ts')).update,
    provision: async () => (await import('./cli/provision.ts')).provision,
    status: async () => (await import('./cli/status.ts')).status,
    devices: async () => (await import('./cli/devices.ts')).devices,
    ddf: async () => (await import('./cli/ddf.ts')).ddf,
    headend: async () => (await import('./cli/headend.ts')).headend,
    device: async () => (await import('./cli/device.ts')).device,
  },
  process.argv.slice(2),
);
