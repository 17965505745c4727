export default { outDir: './public_html', site: 'https://x.test' }
