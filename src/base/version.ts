/** Version of this software, as it tells its peers; the bundle carries the package's own. */
export const softwareVersion: string = process.env.POSTERN_VERSION ?? '0.1.0';
