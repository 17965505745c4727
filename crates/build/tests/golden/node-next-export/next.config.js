const nextConfig = {
  // output: 'standalone',
  output: 'export',
}
module.exports = nextConfig
