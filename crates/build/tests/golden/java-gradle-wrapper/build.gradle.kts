kotlin {
    jvmToolchain(21)
}
